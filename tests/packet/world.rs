//! A client, a director and two servers, each in a network namespace.
//!
//! ```text
//! client 10.1.0.2, fd01::2 -- director 10.9.0.1, fd09::1 (virtual) --+-- a 10.2.0.2, fd02::2
//!                                                                    +-- b 10.3.0.2, fd03::2
//! ```
//!
//! With a second director, each of the three networks is a bridge in the namespace `wire`, and the directors are the
//! hosts 11 and 12 of each. The virtual addresses, and those of the gateways, are left to the test.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use lvs::packet::XdpMode;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::guest;

#[path = "../common/namespaces.rs"]
pub(crate) mod namespaces;

/// The virtual addresses.
pub(crate) const VIRTUAL: [&str; 2] = ["10.9.0.1", "fd09::1"];
/// The servers' addresses, by family.
pub(crate) const SERVERS: [[&str; 2]; 2] = [["10.2.0.2", "10.3.0.2"], ["fd02::2", "fd03::2"]];

/// The namespaces of a test, and a BPF file system of its own; both are gone when it is dropped.
pub(crate) struct World {
    name: String,
    folder: PathBuf,
    machines: &'static [&'static str],
    /// How the director's devices carry frames; `None` for those that do not.
    pub(crate) xdp_mode: Option<XdpMode>,
    /// Networks are wires between network cards.
    has_cards: bool,
}

const MACHINES: [&str; 4] = ["client", "director", "a", "b"];

/// The networks, by their numbers, and who is in them beside the directors.
const NETWORKS: [(u8, &str); 3] = [(1, "client"), (2, "a"), (3, "b")];

impl World {
    /// Makes the namespaces; `None` where this is not possible, for a reason that was printed.
    pub(crate) fn build() -> Option<Self> {
        let world = Self::of_machines(&MACHINES)?;
        for (n, machine) in NETWORKS {
            world.connect_machine(n, machine);
        }
        world.add_virtual_addresses();
        Some(world)
    }

    /// The same, with a director that carries frames before the kernel makes packets of them, by pairs of devices.
    pub(crate) fn build_at_generic_xdp() -> Option<Self> {
        if !namespaces::can_run(&["ethtool"]) {
            return None;
        }
        let mut world = Self::build()?;
        world.xdp_mode = Some(XdpMode::Generic);
        world.allow_forwarding();
        for (_, machine) in NETWORKS {
            // Checksums are not left to a device that there is not.
            world.output(machine, "ethtool", "-K eth0 tx off");
        }
        Some(world)
    }

    /// The same by the network cards of a kernel of the test's own, which has three wires.
    pub(crate) fn build_at_native_xdp() -> Option<Self> {
        let mut world = Self::of_machines(&MACHINES)?;
        (world.xdp_mode, world.has_cards) = (Some(XdpMode::Native), true);
        world.allow_forwarding();
        for (wire, (n, machine)) in (0..).zip(NETWORKS) {
            let near = format!("to-{machine}");
            for (end, at, device) in [(0, "director", &*near), (1, machine, "eth0")] {
                guest::move_card(wire, end, &world.namespace(at), device);
            }
            world.connect_devices(n, machine);
        }
        world.add_virtual_addresses();
        Some(world)
    }

    /// Moves the network cards back.
    fn return_cards(&self) {
        for (_, machine) in NETWORKS {
            guest::return_card(&self.namespace("director"), &format!("to-{machine}"));
            guest::return_card(&self.namespace(machine), "eth0");
        }
    }

    /// The kernel tells programs next hops at devices by which it may forward.
    fn allow_forwarding(&self) {
        self.within("director", || {
            for family in ["ipv4", "ipv6"] {
                let path = format!("/proc/sys/net/{family}/conf/all/forwarding");
                fs::write(path, "1").expect("root may");
            }
        });
    }

    fn add_virtual_addresses(&self) {
        for address in VIRTUAL {
            self.at("director", &format!("address add {address} dev lo"));
        }
    }

    /// Makes the namespaces of two directors; `None` where this is not possible, for a reason that was printed.
    pub(crate) fn build_pair() -> Option<Self> {
        let world = Self::of_machines(&["client", "director", "second", "a", "b", "wire"])?;
        for (n, machine) in NETWORKS {
            world.at("wire", &format!("link add net{n} type bridge forward_delay 0"));
            world.at("wire", &format!("link set net{n} up"));
            let near = format!("to-{machine}");
            for (at, device, host) in
                [(machine, "eth0", 2), ("director", &*near, 11), ("second", &*near, 12)]
            {
                world.plug(n, at, device);
                world.add_addresses(n, at, device, host);
            }
            world.add_default_routes(n, machine);
        }
        Some(world)
    }

    /// Connects a device of a machine with the bridge of a network.
    fn plug(&self, n: u8, machine: &str, device: &str) {
        let (wire, other) = (self.namespace("wire"), self.namespace(machine));
        let port = format!("{machine}{n}");
        Self::ip(&format!(
            "link add {port} netns {wire} type veth peer name {device} netns {other}"
        ));
        self.at("wire", &format!("link set {port} master net{n} up"));
    }

    /// Connects the links of a machine to the networks, or pulls them out.
    pub(crate) fn set_links(&self, machine: &str, state: &str) {
        for (n, _) in NETWORKS {
            self.at("wire", &format!("link set {machine}{n} {state}"));
        }
    }

    /// Has the directors of a pair hear nothing of each other, or all again; the other machines hear both.
    pub(crate) fn split_directors(&self, is_split: bool) {
        let isolated = if is_split { "on" } else { "off" };
        for machine in ["director", "second"] {
            for (n, _) in NETWORKS {
                let port = format!("link set {machine}{n} type bridge_slave isolated {isolated}");
                self.at("wire", &port);
            }
        }
    }

    fn add_addresses(&self, n: u8, machine: &str, device: &str, host: u8) {
        self.at(machine, &format!("link set {device} up"));
        self.at(machine, &format!("address add 10.{n}.0.{host}/24 dev {device}"));
        self.at(machine, &format!("address add fd0{n}::{host}/64 dev {device} nodad"));
    }

    fn add_default_routes(&self, n: u8, machine: &str) {
        self.at(machine, &format!("route add default via 10.{n}.0.1"));
        self.at(machine, &format!("-6 route add default via fd0{n}::1"));
    }

    fn of_machines(machines: &'static [&'static str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !namespaces::can_run(&["ip"]) {
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lvsp{}-{number}", std::process::id());
        // What a kernel of its own can write to, too.
        let folder = Path::new("/run").join(&name);
        fs::create_dir(&folder).expect("a folder");
        mount("bpf", &folder, "bpf", MountFlags::empty(), None).expect("a BPF file system");
        let world = Self { name, folder, machines, xdp_mode: None, has_cards: false };
        for machine in machines {
            Self::ip(&format!("netns add {}", world.namespace(machine)));
            world.at(machine, "link set lo up");
        }
        Some(world)
    }

    /// Connects a machine with the director, by the network of this number.
    pub(crate) fn connect_machine(&self, n: u8, machine: &str) {
        let (director, other) = (self.namespace("director"), self.namespace(machine));
        let near = format!("to-{machine}");
        Self::ip(&format!(
            "link add {near} netns {director} type veth peer name eth0 netns {other}"
        ));
        self.connect_devices(n, machine);
    }

    fn connect_devices(&self, n: u8, machine: &str) {
        let near = format!("to-{machine}");
        for (at, device, host) in [("director", &*near, 1), (machine, "eth0", 2)] {
            self.add_addresses(n, at, device, host);
        }
        self.add_default_routes(n, machine);
    }

    pub(crate) fn namespace(&self, machine: &str) -> String {
        format!("{}-{machine}", self.name)
    }

    /// Returns the folder for what outlives an engine.
    pub(crate) fn pin_folder(&self) -> PathBuf {
        self.folder.join("lvs")
    }

    fn ip(arguments: &str) {
        let mut command = Command::new("ip");
        let output = command.args(arguments.split_whitespace()).output().expect("ip runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {error}");
    }

    /// Returns what a program prints on a machine.
    pub(crate) fn output(&self, machine: &str, program: &str, arguments: &str) -> String {
        let run = || {
            let mut command = Command::new(program);
            command.args(arguments.split_whitespace()).output().expect("it runs")
        };
        String::from_utf8(self.within(machine, run).stdout).expect("text")
    }

    /// Runs `ip` on a machine.
    pub(crate) fn at(&self, machine: &str, arguments: &str) {
        Self::ip(&format!("-n {} {arguments}", self.namespace(machine)));
    }

    /// Moves the calling thread to a machine, for good.
    pub(crate) fn enter(&self, machine: &str) {
        Self::enter_namespace(&self.namespace(machine));
    }

    /// Moves the calling thread to a namespace, for good.
    pub(crate) fn enter_namespace(namespace: &str) {
        let path = Path::new("/run/netns").join(namespace);
        let namespace = fs::File::open(path).expect("the namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root enters it");
    }

    /// Runs a function on a machine.
    pub(crate) fn within<R: Send>(&self, machine: &str, run: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter(machine);
                run()
            });
            thread.join().expect("no panic")
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.has_cards {
            self.return_cards();
        }
        for machine in self.machines {
            // More important than one that is not there.
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(machine)]).output();
        }
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Returns an address with a port.
pub(crate) fn socket_address(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}
