//! Two machines for directors and one for clients and servers, on a switch of their own: network
//! namespaces `a`, `b` and `c`, with their links in a bridge in `s`.
#![allow(dead_code, reason = "tests and the bench use what they need of it")]

#[path = "../common/machines.rs"]
pub(crate) mod machines;

use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use self::machines::{Machines, Process, get_by};

/// The virtual address.
pub(crate) const VIRTUAL: &str = "10.88.0.100";
/// The IPv6 virtual addresses, where a test has some.
pub(crate) const VIRTUAL_V6: [&str; 2] = ["fe80::100", "fd00:88::100"];

/// The network namespaces; dropped, they are deleted.
pub(crate) struct World(Machines);

impl Deref for World {
    type Target = Machines;

    fn deref(&self) -> &Machines {
        &self.0
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Machines {
        &mut self.0
    }
}

impl World {
    /// Returns `None` without root or `ip`, and prints the reason.
    pub(crate) fn new() -> Option<Self> {
        let world = Self(Machines::new(&["s", "a", "b", "c"], &["ip"])?);
        world.add_switch("s");
        for (side, number) in [("a", 1), ("b", 2), ("c", 3)] {
            world.plug_in(side, "eth0", "s");
            let address = format!("10.88.0.{number}/24");
            world.on(side, &["addr", "add", &address, "dev", "eth0"]);
            let address = format!("fe80::{number}/64");
            world.on(side, &["addr", "add", &address, "dev", "eth0", "nodad"]);
            let address = format!("fd00:88::{number}/64");
            world.on(side, &["addr", "add", &address, "dev", "eth0", "nodad"]);
        }
        Some(world)
    }

    /// Starts a director in a namespace.
    pub(crate) fn director(&self, side: &str, config: &str) -> Process {
        let file = self.file(&format!("{side}.toml"), &format!("drain_timeout = \"0s\"\n{config}"));
        let program = Path::new(env!("CARGO_BIN_EXE_lvs"));
        self.start(side, "director", program, &["run", "--config", &file])
    }

    /// Starts real servers in the namespace of the clients, which answer with their ports.
    pub(crate) fn servers(&mut self, ports: &[u16]) {
        self.0.servers("c", [10, 88, 0, 3].into(), ports);
    }

    /// Sends a request to the virtual address; returns the body.
    pub(crate) fn ask(&self, port: u16) -> std::io::Result<String> {
        let address = SocketAddr::new(VIRTUAL.parse().expect("an address"), port);
        self.within("c", || get_by(TcpStream::connect(address)?, "/"))
    }

    /// Changes a server at a director; returns its answer.
    pub(crate) fn change(&self, side: &str, server: &str, body: &str) -> String {
        self.patch(side, &format!("/api/v1/services/web/servers/{server}"), body)
    }

    pub(crate) fn has_all(&self, side: &str) -> bool {
        self.has(side, VIRTUAL) && VIRTUAL_V6.iter().all(|address| self.has(side, address))
    }

    pub(crate) fn has_none(&self, side: &str) -> bool {
        !self.has(side, VIRTUAL) && !VIRTUAL_V6.iter().any(|address| self.has(side, address))
    }

    pub(crate) fn has(&self, side: &str, address: &str) -> bool {
        self.show(side, &["-br", "addr"]).contains(&format!("{address}/"))
    }

    pub(crate) fn mac(&self, side: &str) -> String {
        let links = self.show(side, &["-br", "link", "show", "dev", "eth0"]);
        links.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }

    /// Sends a packet to an address from the clients' namespace, which resolves its MAC address.
    pub(crate) fn knock(&self, address: &str) {
        let address = SocketAddr::new(address.parse().expect("an address"), 9);
        // No process listens there.
        let _ = self.within("c", || TcpStream::connect_timeout(&address, Duration::from_secs(1)));
    }

    /// Returns the clients' neighbour entry of an address.
    pub(crate) fn neighbour(&self, address: &str) -> String {
        self.show("c", &["neigh", "show", address])
    }

    /// Takes a machine's link at the switch down, or up.
    pub(crate) fn link(&self, side: &str, is_up: bool) {
        self.on("s", &["link", "set", "dev", side, if is_up { "up" } else { "down" }]);
    }

    /// Isolates the directors from each other, or ends that; clients reach both.
    pub(crate) fn split(&self, is_split: bool) {
        for side in ["a", "b"] {
            let value = if is_split { "1" } else { "0" };
            let path = format!("/sys/class/net/{side}/brport/isolated");
            let write = format!("echo {value} > {path}");
            let words = ["netns", "exec", &self.space("s"), "sh", "-c", &write];
            machines::run_ip(&words).expect("as root");
        }
    }
}

/// Returns the configuration of one of the two directors.
pub(crate) fn config(side: &str, interval_ms: u64, more: &str) -> String {
    let (own, other, priority) = match side {
        "a" => (1, 2, 150),
        _ => (2, 1, 100),
    };
    format!(
        r#"
        workers = 1
        [admin]
        listen = "127.0.0.1:9000"
        [[service]]
        name = "web"
        listen = "{VIRTUAL}:80"
        scheduler = "rr"
        persistence = {{ timeout = "5m" }}
        health = {{ type = "tcp", interval = "200ms" }}
        [[service.server]]
        address = "10.88.0.3:9001"
        [[service.server]]
        address = "10.88.0.3:9002"
        [vrrp]
        interface = "eth0"
        virtual_router_id = 51
        priority = {priority}
        advert_interval = "{interval_ms}ms"
        addresses = ["{VIRTUAL}/24"]
        {more}
        [sync]
        listen = "10.88.0.{own}:8849"
        peer = "10.88.0.{other}:8849"
        key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        "#
    )
}
