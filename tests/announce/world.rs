//! A router, three directors, clients and servers: network namespaces `r`, `d1` to `d3`, `c` and `w`. The router, the
//! directors and the servers are on a switch, so that no machine sees the link of another one go down.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::machines::{Machines, Process, until};

/// The addresses that all directors announce.
pub(crate) const ANNOUNCED: &str = "203.0.113.10";
pub(crate) const ANNOUNCED_V6: &str = "2001:db8::10";

/// The servers of port 80.
const SERVERS: [&str; 2] = ["10.0.0.20:80", "10.0.0.21:80"];
const SERVERS_V6: [&str; 2] = ["[fd00:10::20]:80", "[fd00:10::21]:80"];

pub(crate) const DIRECTORS: [&str; 3] = ["d1", "d2", "d3"];

/// How many addresses of each family the clients have besides.
pub(crate) const SOURCES: usize = 50;

/// Returns one of these addresses of each family.
pub(crate) fn source_addresses(number: usize) -> (IpAddr, IpAddr) {
    let number = number as u16 + 10;
    (IpAddr::from([10, 1, 0, number as u8]), IpAddr::from([0xfd00, 0x11, 0, 0, 0, 0, 0, number]))
}

/// The routing daemon of all machines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Daemon {
    Bird,
    Frr,
}

/// What carries connections at the directors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carrier {
    /// The forwarder: connections end with their director.
    Proxy,
    /// The packet engine with direct routing and a table that all directors have in common.
    PacketByTable,
}

/// The machines, with their routing daemons.
pub(crate) struct World {
    machines: Machines,
    daemon: Daemon,
    with_bfd: bool,
    daemons: Vec<Process>,
    bpf: Option<PathBuf>,
}

impl Deref for World {
    type Target = Machines;

    fn deref(&self) -> &Machines {
        &self.machines
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Machines {
        &mut self.machines
    }
}

impl World {
    /// Starts the machines and their routing daemons; `None` without root or a program, and prints the reason.
    pub(crate) fn new(daemon: Daemon, with_bfd: bool, carrier: Carrier) -> Option<Self> {
        let programs: &[&str] = match daemon {
            Daemon::Bird => &["ip", "bird"],
            Daemon::Frr => &["ip", "/usr/lib/frr/bgpd", "vtysh"],
        };
        let machines = Machines::new(&["s", "r", "d1", "d2", "d3", "w", "v", "c"], programs)?;
        machines.add_switch("s");
        for (side, number) in [("r", 1), ("d1", 11), ("d2", 12), ("d3", 13), ("w", 20), ("v", 21)] {
            machines.plug_in(side, "eth0", "s");
            let (four, six) = (format!("10.0.0.{number}/24"), format!("fd00:10::{number}/64"));
            machines.on(side, &["addr", "add", &four, "dev", "eth0"]);
            machines.on(side, &["addr", "add", &six, "dev", "eth0", "nodad"]);
            // FRR takes no IPv6 session without.
            let link_local = format!("fe80::{number}/64");
            machines.on(side, &["addr", "add", &link_local, "dev", "eth0", "nodad"]);
        }
        let (router, clients) = (machines.space("r"), machines.space("c"));
        let veth = ["type", "veth", "peer", "name", "eth0", "netns", &clients];
        machines.on("r", &[&["link", "add", "clients"][..], &veth].concat());
        for (side, interface, number) in [("r", "clients", 1), ("c", "eth0", 2)] {
            let (four, six) = (format!("10.1.0.{number}/24"), format!("fd00:11::{number}/64"));
            machines.on(side, &["addr", "add", &four, "dev", interface]);
            machines.on(side, &["addr", "add", &six, "dev", interface, "nodad"]);
            machines.on(side, &["link", "set", interface, "up"]);
        }
        // Clients of many addresses, which a table by the client's address spreads.
        for (four, six) in (0..SOURCES).map(source_addresses) {
            machines.on("c", &["addr", "add", &format!("{four}/24"), "dev", "eth0"]);
            machines.on("c", &["addr", "add", &format!("{six}/64"), "dev", "eth0", "nodad"]);
        }
        for side in ["d1", "d2", "d3", "w", "v", "c"] {
            let (four, six) = match side {
                "c" => ("10.1.0.1", "fd00:11::1"),
                _ => ("10.0.0.1", "fd00:10::1"),
            };
            machines.on(side, &["route", "add", "default", "via", four]);
            machines.on(side, &["route", "add", "default", "via", six]);
        }
        for setting in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv4/fib_multipath_hash_policy",
            "ipv6/fib_multipath_hash_policy",
        ] {
            let write = format!("echo 1 > /proc/sys/net/{setting}");
            crate::machines::run_ip(&["netns", "exec", &router, "sh", "-c", &write])
                .expect("as root");
        }
        let mut bpf = None;
        if carrier == Carrier::PacketByTable {
            for address in [format!("{ANNOUNCED}/32"), format!("{ANNOUNCED_V6}/128")] {
                for side in ["w", "v"] {
                    machines.on(side, &["addr", "add", &address, "dev", "lo"]);
                }
            }
            let folder = machines.folder.join("bpf");
            fs::create_dir(&folder).expect("a folder");
            mount("bpf", &folder, "bpf", MountFlags::empty(), None).expect("a BPF file system");
            bpf = Some(folder);
        }
        let mut world = Self { machines, daemon, with_bfd, daemons: Vec::new(), bpf };
        for side in ["r", "d1", "d2", "d3"] {
            world.start_daemon(side);
        }
        Some(world)
    }

    /// Starts the routing daemon of a machine.
    fn start_daemon(&mut self, side: &str) {
        let processes = match self.daemon {
            Daemon::Bird => vec![self.start_bird(side)],
            Daemon::Frr => self.start_frr(side),
        };
        self.daemons.extend(processes);
    }

    /// Takes a machine off the switch, whose other ports do not notice: nothing of it is heard any more.
    pub(crate) fn unplug(&self, side: &str) {
        self.on("s", &["link", "set", "dev", side, "nomaster"]);
    }

    /// Returns the configuration of a machine, as `contrib/routing` has it for the first director and for the router.
    fn daemon_config(&self, side: &str) -> String {
        let daemon = match self.daemon {
            Daemon::Bird => "bird",
            Daemon::Frr => "frr",
        };
        let suffix = if side == "r" { "-router" } else { "" };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/routing");
        let text = fs::read_to_string(folder.join(format!("{daemon}{suffix}.conf")));
        let mut text = text.expect("a sample");
        if let Some(number) = side.strip_prefix('d') {
            text = text.replace("10.0.0.11", &format!("10.0.0.1{number}"));
            text = text.replace("fd00:10::11", &format!("fd00:10::1{number}"));
        }
        if !self.with_bfd {
            let lines = text.lines().filter(|line| {
                !["bfd on;", "neighbor router bfd", "neighbor directors bfd"].contains(&line.trim())
            });
            text = lines.map(|line| format!("{line}\n")).collect();
        }
        text.replace("log syslog all;", "log stderr all;")
    }

    fn start_bird(&self, side: &str) -> Process {
        let config = self.file(&format!("bird-{side}.conf"), &self.daemon_config(side));
        let control = self.folder.join(format!("bird-{side}.ctl"));
        let control = control.to_str().expect("text");
        self.start(side, "bird", Path::new("bird"), &["-f", "-c", &config, "-s", control])
    }

    fn start_frr(&self, side: &str) -> Vec<Process> {
        let folder = self.folder.join(format!("frr-{side}"));
        fs::create_dir_all(folder.join("vty")).expect("a folder");
        fs::write(folder.join("frr.conf"), self.daemon_config(side)).expect("a file");
        fs::write(folder.join("empty.conf"), "").expect("a file");
        // Not for an integrated configuration alone: the daemons give up root.
        let owned = Command::new("chown").args(["-R", "frr:frr"]).arg(&folder).status();
        assert!(owned.expect("`chown`").success());
        let path = |name: &str| folder.join(name).to_str().expect("text").to_owned();
        let (vty, zebra, empty) = (path("vty"), path("zebra.sock"), path("empty.conf"));
        let start = |daemon: &str| {
            let program = Path::new("/usr/lib/frr").join(daemon);
            let pid = path(&format!("{daemon}.pid"));
            let words =
                ["-f", &empty, "-i", &pid, "-z", &zebra, "--vty_socket", &vty, "--log", "stdout"];
            // Several on a machine: the sockets of BFD are told apart by their folder.
            let control = path("bfdd.sock");
            let more: &[&str] = if daemon == "bfdd" { &["--bfdctl", &control] } else { &[] };
            self.start(side, daemon, &program, &[&words[..], more].concat())
        };
        let processes = ["zebra", "bgpd", "bfdd"].map(|daemon| {
            let process = start(daemon);
            let socket = folder.join(format!("vty/{daemon}.vty"));
            until(&format!("{daemon} runs"), || socket.exists());
            process
        });
        let space = self.space(side);
        let read = || {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &space, "vtysh", "--vty_socket", &vty]);
            command.args(["--config_dir"]).arg(&folder).arg("-b").output().expect("`vtysh`")
        };
        let output = read();
        assert!(output.status.success(), "{output:?}");
        processes.into()
    }

    /// Starts a director, with more keys of `[announce]`.
    pub(crate) fn director(&self, side: &str, announce: &str) -> Process {
        self.director_with(side, "", announce)
    }

    /// Starts a director, with more keys at the top and of `[announce]`.
    pub(crate) fn director_with(&self, side: &str, top: &str, announce: &str) -> Process {
        let text = match &self.bpf {
            None => format!("{top}{}", proxy_config(announce)),
            Some(bpf) => format!("{top}{}", packet_config(announce, &bpf.join(side))),
        };
        let file = self.file(&format!("{side}.toml"), &text);
        let program = Path::new(env!("CARGO_BIN_EXE_lvs"));
        self.start(side, "director", program, &["run", "--config", &file])
    }

    /// Returns the services at port 80, with their servers.
    pub(crate) fn checked_services(&self) -> &'static [(&'static str, [&'static str; 2])] {
        let services = &[("web", SERVERS), ("web6", SERVERS_V6)];
        if self.bpf.is_some() { services } else { &services[..1] }
    }

    /// Returns the directors that the router sends clients of an address to.
    pub(crate) fn next_hops(&self, address: &str) -> Vec<&'static str> {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let routes = self.show("r", &[family, "route", "show", address]);
        let hop = |side: &&str| {
            let number = &side[1..];
            routes.contains(&format!("via 10.0.0.1{number} "))
                || routes.contains(&format!("via fd00:10::1{number} "))
                // FRR prefers those.
                || routes.contains(&format!("via fe80::1{number} "))
        };
        DIRECTORS.into_iter().filter(hop).collect()
    }

    /// Waits until the router sends clients to these directors, over both families.
    #[track_caller]
    pub(crate) fn until_served_by(&self, directors: &[&str]) {
        for address in [ANNOUNCED, ANNOUNCED_V6] {
            let what = format!("{directors:?} have {address}");
            until(&what, || self.next_hops(address) == directors);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Before their folder.
        self.daemons.clear();
        if let Some(folder) = &self.bpf {
            let _ = unmount(folder, UnmountFlags::DETACH);
        }
    }
}

/// Returns the tables that all directors have.
fn common_config(announce: &str) -> String {
    format!(
        r#"
        workers = 1
        drain_timeout = "1s"
        [admin]
        listen = "127.0.0.1:9000"
        [announce]
        addresses = ["{ANNOUNCED}", "{ANNOUNCED_V6}"]
        withdraw_delay = "1s"
        {announce}
        "#
    )
}

/// Returns the configuration of a director whose forwarder serves.
fn proxy_config(announce: &str) -> String {
    let common = common_config(announce);
    format!(
        r#"{common}
        [[service]]
        name = "web"
        listen = ["{ANNOUNCED}:80", "[{ANNOUNCED_V6}]:80"]
        health = {{ type = "tcp", interval = "100ms", timeout = "100ms", rise = 1, fall = 1 }}
        [[service.server]]
        address = "10.0.0.20:80"
        [[service.server]]
        address = "10.0.0.21:80"
        [[service]]
        name = "echo"
        listen = ["{ANNOUNCED}:81", "[{ANNOUNCED_V6}]:81"]
        [[service.server]]
        address = "10.0.0.20:81"
        [[service.server]]
        address = "10.0.0.21:81"
        "#
    )
}

/// Returns the configuration of a director whose kernel serves: packets reach the servers as they are.
fn packet_config(announce: &str, pin_folder: &Path) -> String {
    let mut config = common_config(announce);
    let _ =
        writeln!(config, "[packet]\nflows = 4096\nipv6_flows = 4096\npin_folder = {pin_folder:?}");
    for (name, listen, servers) in [
        ("web", format!("{ANNOUNCED}:80"), SERVERS),
        ("web6", format!("[{ANNOUNCED_V6}]:80"), SERVERS_V6),
        ("echo", format!("{ANNOUNCED}:81"), ["10.0.0.20:81", "10.0.0.21:81"]),
        ("echo6", format!("[{ANNOUNCED_V6}]:81"), ["[fd00:10::20]:81", "[fd00:10::21]:81"]),
    ] {
        let health = match name {
            "web" => {
                r#"health = { type = "tcp", interval = "100ms", timeout = "100ms", fall = 1 }"#
            }
            _ => "",
        };
        let _ = writeln!(
            config,
            "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\nengine = \"packet\"\n\
             scheduler = \"maglev\"\n{health}"
        );
        for server in servers {
            let _ = writeln!(config, "[[service.server]]\naddress = \"{server}\"\nmethod = \"dr\"");
        }
    }
    config
}
