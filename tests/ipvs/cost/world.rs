//! The machines, and the ways between them.
//!
//! ```text
//! client 10.8.0.1 --+-- director 10.8.0.2, 10.9.0.2, 10.8.0.100 to 103 (virtual)
//!                   +-- server   10.9.0.100 to 103, 10.8.0.100 to 103 (not announced), and without a
//!                                director 10.8.0.11
//! ```
//! Each way of IPVS has a virtual address and a server's address of its own: the kernel's balancer
//! remembers a route for each destination, also for one that was removed and comes back, and a late packet
//! of a connection by `nat` would leave there a route that is wrong for `dr`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command};

use lvs::ipvs::{IpvsDestination, IpvsForwarding, IpvsService, IpvsServiceKey};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};

use super::row::Path;
use super::work::{PORT, connect};
use crate::inside::client;
use crate::inside::traffic::{ip, set, within};
use crate::inside::wire::Wire;

const MACHINES: [(&str, u8); 3] = [("client", 1), ("director", 2), ("server", 11)];

/// The addresses of the proxies, the packet engine and the router.
const VIRTUAL: SocketAddr = address(8, 100);
const SERVER: SocketAddr = address(9, 100);

const fn address(network: u8, host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, network, 0, host)), PORT)
}

pub(super) struct World {
    _wire: Wire,
}

/// A way from the client to the server; dropped, it is closed.
pub(super) struct Route {
    pub(super) address: SocketAddr,
    pub(super) has_udp: bool,
    /// What `ip` undoes.
    undo: &'static str,
    program: Option<Child>,
}

impl World {
    /// Makes the machines, which pairs of devices connect, or network cards.
    pub(super) fn build(has_cards: bool) -> Self {
        mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None).expect("a BPF file system");
        let wire =
            if has_cards { Wire::connect_cards(&MACHINES) } else { Wire::connect(&MACHINES) };
        ip("server: address delete 10.8.0.11/24 dev eth0
            server: link set tunl0 up
            client: route add 10.9.0.0/24 via 10.8.0.2
            client: route add local 10.10.0.0/16 dev lo
            director: route add 10.10.0.0/16 via 10.8.0.1
            director: address add 10.9.0.2/24 dev eth0");
        for host in 100..104 {
            ip(&format!(
                "server: address add 10.9.0.{host}/24 dev eth0
                 server: address add 10.8.0.{host}/32 dev lo
                 director: address add 10.8.0.{host}/32 dev eth0"
            ));
        }
        ip("server: route add default via 10.9.0.2");
        within("director", || {
            set("ipv4/ip_forward", "1");
            for interface in ["all", "eth0"] {
                set(&format!("ipv4/conf/{interface}/send_redirects"), "0");
            }
        });
        within("server", || {
            set("ipv4/conf/all/arp_ignore", "1");
            set("ipv4/conf/all/arp_announce", "2");
            for interface in ["all", "eth0", "tunl0"] {
                set(&format!("ipv4/conf/{interface}/rp_filter"), "0");
            }
        });
        Self { _wire: wire }
    }

    /// Opens a way; `None` if the program for it is missing.
    pub(super) fn open(&self, path: Path) -> Option<Route> {
        let mut route = Route { address: VIRTUAL, has_udp: true, undo: "", program: None };
        match path {
            Path::Direct => {
                route.address = address(8, 11);
                ip("server: address add 10.8.0.11/24 dev eth0");
                route.undo = "server: address delete 10.8.0.11/24 dev eth0";
            }
            Path::Routed => route.address = SERVER,
            Path::Ipvs(forwarding) => {
                let host = match forwarding {
                    IpvsForwarding::Nat => 101,
                    IpvsForwarding::DirectRouting => 102,
                    _ => 103,
                };
                route.address = address(8, host);
                within("director", move || add_services(forwarding, host));
                if forwarding != IpvsForwarding::Nat {
                    route.answer_directly();
                }
            }
            Path::Proxy => {
                route.program = Some(start("lvs", "run --config", config("proxy", "wlc", "nat"))?);
            }
            Path::Packet { scheduler, method } | Path::PacketAtXdp { scheduler, method } => {
                let mut config =
                    config("packet", scheduler, method) + "[packet]\nredirect_peer = false\n";
                if matches!(path, Path::PacketAtXdp { .. }) {
                    config += "xdp_devices = [\"eth0\"]\n";
                }
                if method != "nat" {
                    route.answer_directly();
                }
                route.program = Some(start("lvs", "run --config", config)?);
            }
            Path::Haproxy { is_splicing } => {
                let mut config = String::from(
                    "global\n  nbthread 1\n  maxconn 100\ndefaults\n  mode tcp\n\
                     \x20 timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n",
                );
                if is_splicing {
                    config += "  option splice-request\n  option splice-response\n";
                }
                config += &format!("listen web\n  bind {VIRTUAL}\n  server a {SERVER}\n");
                route.program = Some(start("haproxy", "-db -f", config)?);
                route.has_udp = false;
            }
        }
        if route.program.is_some() {
            // It listens to TCP last.
            drop(within("client", || connect(VIRTUAL)));
        }
        Some(route)
    }
}

/// Returns the configuration of a director with a service of TCP and one of UDP.
fn config(engine: &str, scheduler: &str, method: &str) -> String {
    let service = |protocol| {
        format!(
            "[[service]]\nname = \"{protocol}\"\nprotocol = \"{protocol}\"\nlisten = \"{VIRTUAL}\"\n\
             engine = \"{engine}\"\nscheduler = \"{scheduler}\"\n\
             [[service.server]]\naddress = \"{SERVER}\"\nmethod = \"{method}\"\n"
        )
    };
    format!("workers = 1\ndrain_timeout = \"1s\"\n{}{}", service("udp"), service("tcp"))
}

fn add_services(forwarding: IpvsForwarding, host: u8) {
    let mut ipvs = client();
    let (virtual_address, server) = (address(8, host), address(9, host));
    for key in [IpvsServiceKey::tcp(virtual_address), IpvsServiceKey::udp(virtual_address)] {
        ipvs.add_service(&IpvsService::new(key, "rr")).expect("the module is loaded");
        ipvs.add_destination(&key, &IpvsDestination::new(server, forwarding)).expect("a new one");
    }
}

/// Starts a program of the image in the director's namespace.
fn start(name: &'static str, arguments: &str, config: String) -> Option<Child> {
    let program = format!("/bin/{name}");
    if !fs::exists(&program).expect("a readable folder") {
        return None;
    }
    let path = format!("/run/{name}.conf");
    fs::write(&path, config).expect("a writable folder");
    let mut arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
    arguments.push(path);
    let start = move || Command::new(program).args(arguments).spawn();
    Some(within("director", start).expect("the program starts"))
}

impl Route {
    /// Has the server answer the client without the director.
    fn answer_directly(&mut self) {
        ip("server: route add 10.8.0.0/24 dev eth0");
        self.undo = "server: route delete 10.8.0.0/24 dev eth0";
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        ip(self.undo);
        within("director", || client().flush().expect("the module is loaded"));
        if let Some(program) = &mut self.program {
            // Killed, a director would leave its program in the kernel.
            kill_process(Pid::from_child(program), Signal::TERM).expect("a child");
            program.wait().expect("a child");
        }
    }
}
