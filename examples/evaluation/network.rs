//! The network of a cluster: clients, two directors and real servers, each in a network namespace.
//!
//! ```text
//!                      first director
//! clients 10.88.1.3 -+- 10.88.1.1     10.88.2.1 -+- servers 10.88.2.3
//!                    +- 10.88.1.2     10.88.2.2 -+
//!                      second director
//! ```
//! Clients and servers are on different networks, and the servers' gateway is an address of the active
//! director, because the packet engine translates addresses as a router would. Each network is a bridge
//! in a namespace of its own. A network is built for each cluster anew, so that nothing that one product
//! leaves in the kernel is there for the next.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Error, Namespace};

/// The virtual address, which clients connect to.
pub(crate) const VIRTUAL: &str = "10.88.1.100";
/// The servers' gateway, which the active director has too.
pub(crate) const GATEWAY: &str = "10.88.2.100";
/// The address of all real servers; each has a port of its own.
pub(crate) const SERVERS: &str = "10.88.2.3";
/// The directors' interfaces on the networks of the clients and of the servers.
pub(crate) const FRONT: &str = "front";
pub(crate) const BACK: &str = "back";
/// The first two octets of further addresses of the clients.
pub(crate) const MANY_CLIENTS: [u8; 2] = [10, 89];

/// A machine of the network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Machine {
    Clients,
    FirstDirector,
    SecondDirector,
    Servers,
    /// Has the two bridges.
    Switch,
}

impl Machine {
    const ALL: [Self; 5] =
        [Self::Clients, Self::FirstDirector, Self::SecondDirector, Self::Servers, Self::Switch];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::FirstDirector => "first",
            Self::SecondDirector => "second",
            Self::Servers => "servers",
            Self::Switch => "switch",
        }
    }

    /// Returns the last octet of the machine's addresses.
    fn host(self) -> u8 {
        match self {
            Self::FirstDirector => 1,
            Self::SecondDirector => 2,
            Self::Clients | Self::Servers | Self::Switch => 3,
        }
    }

    /// Returns the machine's address on the network of the servers.
    pub(crate) fn back_address(self) -> String {
        format!("10.88.2.{}", self.host())
    }
}

/// The interfaces of the machines: each is a port of the bridge of the same name.
const LINKS: [(Machine, &str, u8); 6] = [
    (Machine::Clients, FRONT, 1),
    (Machine::FirstDirector, FRONT, 1),
    (Machine::SecondDirector, FRONT, 1),
    (Machine::FirstDirector, BACK, 2),
    (Machine::SecondDirector, BACK, 2),
    (Machine::Servers, BACK, 2),
];

/// The network namespaces of a cluster, which are deleted when this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
    /// The BPF file system for the packet engine.
    bpf: Option<PathBuf>,
}

impl Network {
    pub(crate) fn build() -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // From here on a failure deletes what was made.
        let network = Self { name: format!("lvse{}-{number}", std::process::id()), bpf: None };
        let mut lines = String::new();
        for machine in Machine::ALL {
            lines += &format!("netns add {}\n", network.space(machine));
        }
        let switch = network.space(Machine::Switch);
        for (machine, link, _) in LINKS {
            let (space, port) = (network.space(machine), port(machine, link));
            lines += &format!(
                "link add {link} netns {space} type veth peer name {port} netns {switch}\n"
            );
        }
        ip(None, &lines)?;
        let mut lines = String::new();
        for bridge in [FRONT, BACK] {
            lines += &format!("link add {bridge} type bridge\nlink set {bridge} up\n");
        }
        for (machine, bridge, _) in LINKS {
            lines += &format!("link set {} master {bridge} up\n", port(machine, bridge));
        }
        network.run(Machine::Switch, &lines)?;
        for (machine, link, net) in LINKS {
            let address = format!("10.88.{net}.{}/24", machine.host());
            let lines = format!(
                "link set lo up\nlink set {link} addrgenmode none up\naddress add {address} dev {link}\n"
            );
            network.run(machine, &lines)?;
        }
        let [a, b] = MANY_CLIENTS;
        let lines = format!(
            "route add local {a}.{b}.0.0/16 dev lo\nroute add 10.88.2.0/24 via 10.88.1.1\n"
        );
        network.run(Machine::Clients, &lines)?;
        for director in [Machine::FirstDirector, Machine::SecondDirector] {
            let host = Machine::Clients.host();
            network.run(
                director,
                &format!("route add {a}.{b}.0.0/16 via 10.88.1.{host} dev {FRONT}\n"),
            )?;
        }
        network.run(Machine::Servers, &format!("route add default via {GATEWAY}\n"))?;
        Ok(network)
    }

    /// Mounts a BPF file system for the packet engine of this network.
    pub(crate) fn mount_bpf(&mut self) -> Result<(), Error> {
        let folder = Path::new("/run").join(&self.name);
        fs::create_dir(&folder)?;
        let folder = self.bpf.insert(folder);
        mount("bpf", &*folder, "bpf", MountFlags::empty(), None)
            .map_err(|error| format!("a BPF file system cannot be mounted: {error}"))?;
        Ok(())
    }

    /// Returns the folder for what outlives the packet engine of a director.
    pub(crate) fn pin_folder(&self, machine: Machine) -> Option<PathBuf> {
        Some(self.bpf.as_ref()?.join(machine.name()))
    }

    /// Gives the first director the virtual address and that of the gateway, without an election.
    pub(crate) fn add_addresses(&self) -> Result<(), Error> {
        let lines =
            format!("address add {VIRTUAL}/24 dev {FRONT}\naddress add {GATEWAY}/24 dev {BACK}\n");
        self.run(Machine::FirstDirector, &lines)
    }

    /// Makes the first director a router, by which clients reach servers without a balancer.
    pub(crate) fn route(&self) -> Result<(), Error> {
        self.within(Machine::FirstDirector, || fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
        Ok(())
    }

    /// Takes the links of a machine down, at the switch.
    pub(crate) fn cut_off(&self, machine: Machine) -> Result<(), Error> {
        let links = LINKS.iter().filter(|(other, ..)| *other == machine);
        let lines = links.map(|(_, link, _)| format!("link set {} down\n", port(machine, link)));
        self.run(Machine::Switch, &lines.collect::<String>())
    }

    pub(crate) fn namespace(&self, machine: Machine) -> Namespace {
        Namespace(Some(self.space(machine)))
    }

    /// Runs a function in a namespace; its sockets stay in that namespace.
    pub(crate) fn within<R: Send>(
        &self,
        machine: Machine,
        run: impl FnOnce() -> R + Send,
    ) -> Result<R, Error> {
        let space = File::open(Path::new("/run/netns").join(self.space(machine)))?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(space.as_fd(), kind).map(|()| run())
            });
            Ok(thread.join().map_err(|_| "a thread in a network namespace panicked")??)
        })
    }

    /// Returns whether a machine has an address.
    pub(crate) fn has(&self, machine: Machine, address: &str) -> bool {
        self.show(machine, &["-br", "address"]).contains(&format!(" {address}/"))
    }

    /// Returns whether the clients send what is for the virtual address to a director.
    pub(crate) fn leads_to(&self, director: Machine) -> bool {
        let link = self.show(director, &["-br", "link", "show", FRONT]);
        let mac = link.split_whitespace().nth(2).unwrap_or("unknown");
        self.show(Machine::Clients, &["neighbour", "show", VIRTUAL]).contains(mac)
    }

    fn space(&self, machine: Machine) -> String {
        format!("{}-{}", self.name, machine.name())
    }

    fn run(&self, machine: Machine, lines: &str) -> Result<(), Error> {
        ip(Some(&self.space(machine)), lines)
    }

    fn show(&self, machine: Machine, words: &[&str]) -> String {
        let output = Command::new("ip").args(["-n", &self.space(machine)]).args(words).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in Machine::ALL {
            // After a failure to build it, some are not there.
            let mut command = Command::new("ip");
            let _ = command.args(["netns", "delete", &self.space(machine)]).output();
        }
        if let Some(bpf) = &self.bpf {
            let _ = unmount(bpf, UnmountFlags::DETACH);
            let _ = fs::remove_dir(bpf);
        }
    }
}

/// Returns the name of a machine's port at the switch.
fn port(machine: Machine, link: &str) -> String {
    format!("{}-{link}", machine.name())
}

/// Runs commands of `ip`, a line each, in a namespace or in this process's own.
fn ip(space: Option<&str>, lines: &str) -> Result<(), Error> {
    let mut command = Command::new("ip");
    if let Some(space) = space {
        command.args(["-n", space]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip: {}: {lines}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
