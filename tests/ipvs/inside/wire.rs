//! Network namespaces that are connected.

use super::run;
use super::traffic::ip;

/// Machines on one wire, each with `eth0`; dropped, their names are free for the next test.
pub(crate) struct Wire {
    machines: &'static [(&'static str, u8)],
    has_cards: bool,
}

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
                 wire: link set {name} master br0 up"
            ));
            set_up(name, *host);
        }
        Self { machines, has_cards: false }
    }

    /// The same by network cards, of which the kernel has as many at its first wire.
    pub(crate) fn connect_cards(machines: &'static [(&'static str, u8)]) -> Self {
        for (number, (name, host)) in (0..).zip(machines) {
            ip(&format!("netns add {name}"));
            crate::guest::move_card(0, number, name, "eth0");
            set_up(name, *host);
        }
        Self { machines, has_cards: true }
    }
}

fn set_up(name: &str, host: u8) {
    ip(&format!(
        "{name}: link set lo up
         {name}: link set eth0 up
         {name}: address add 10.8.0.{host}/24 dev eth0
         {name}: address add fd08::{host}/64 dev eth0 nodad"
    ));
}

impl Drop for Wire {
    fn drop(&mut self) {
        for (name, _) in self.machines {
            if self.has_cards {
                crate::guest::return_card(name, "eth0");
            }
            run("ip", &format!("netns delete {name}"));
        }
        if !self.has_cards {
            run("ip", "netns delete wire");
        }
    }
}
