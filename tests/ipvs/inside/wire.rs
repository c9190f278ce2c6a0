//! Network namespaces that are connected.

use super::run;
use super::traffic::ip;

/// Machines on one wire, each with `eth0`; dropped, their names are free for the next test.
pub(crate) struct Wire(&'static [(&'static str, u8)]);

impl Wire {
    /// Makes a namespace for each name, with the addresses 10.8.0.N/24 and fd08::N/64, where N is written
    /// in decimal digits, and one for the wire itself, whose ports have the names of the machines.
    pub(crate) fn connect(machines: &'static [(&'static str, u8)]) -> Self {
        ip("netns add wire
            wire: link add br0 type bridge mcast_snooping 0
            wire: link set br0 up");
        for (name, host) in machines {
            ip(&format!(
                "netns add {name}
                 wire: link add {name} type veth peer name eth0 netns {name}
                 wire: link set {name} master br0 up
                 {name}: link set lo up
                 {name}: link set eth0 up
                 {name}: address add 10.8.0.{host}/24 dev eth0
                 {name}: address add fd08::{host}/64 dev eth0 nodad"
            ));
        }
        Self(machines)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for (name, _) in self.0 {
            run("ip", &format!("netns delete {name}"));
        }
        run("ip", "netns delete wire");
    }
}
