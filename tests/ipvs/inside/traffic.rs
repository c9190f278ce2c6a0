//! Connections through the kernel's balancer, by every forwarding method, between network namespaces.
//!
//! ```text
//! client 10.8.0.1 --+-- director 10.8.0.2, 10.8.0.100 (virtual), 10.9.0.2
//!                   +-- server1 10.9.0.11
//!                   +-- server2 10.9.0.12
//! ```
//! and the same with `fd08::` and `fd09::`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lvs::ipvs::{
    IpvsClient, IpvsDestination, IpvsForwarding, IpvsService, IpvsServiceKey, IpvsTunnel,
    IpvsTunnelChecksum,
};

use super::sync::enter_peer;
use super::{client, run, tcp};
use crate::guest;

const VIRTUAL: [&str; 2] = ["10.8.0.100:80", "[fd08::100]:80"];
const SERVERS: [[&str; 2]; 2] =
    [["10.9.0.11:80", "10.9.0.12:80"], ["[fd09::11]:80", "[fd09::12]:80"]];

/// Runs `ip` for each line; a line that begins with `NAME:` in that namespace.
pub(crate) fn ip(script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some((namespace, command)) => run("ip", &format!("-n {namespace} {command}")),
            None => run("ip", line),
        };
    }
}

/// Runs something in another namespace, in which a process stays that it starts.
pub(crate) fn within<T: Send + 'static>(
    namespace: &'static str,
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let thread = thread::spawn(move || {
        enter_peer(namespace);
        act()
    });
    thread.join().expect("it does not panic")
}

pub(crate) fn set(key: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{key}"), value)
        .unwrap_or_else(|error| panic!("{key}: {error}"));
}

/// The namespaces beside that of the director; their names are free again when this is dropped.
pub(super) struct World;

impl Drop for World {
    fn drop(&mut self) {
        ["client", "server1", "server2", "switch"]
            .iter()
            .for_each(|name| drop(run("ip", &format!("netns delete {name}"))));
    }
}

pub(super) fn build_world() -> World {
    ip("netns add switch
        switch: link add br0 type bridge mcast_snooping 0
        switch: link set br0 up
        netns add client
        netns add server1
        netns add server2");
    // This namespace is the director.
    ip("link add port0 netns switch type veth peer name eth0");
    for name in ["client", "server1", "server2"] {
        ip(&format!(
            "switch: link add {name} type veth peer name eth0 netns {name}
             switch: link set {name} master br0 up
             {name}: link set lo up
             {name}: link set eth0 up"
        ));
    }
    ip("switch: link set port0 master br0 up
        link set eth0 up
        address add 10.8.0.2/24 dev eth0
        address add 10.9.0.2/24 dev eth0
        address add 10.8.0.100/32 dev eth0
        address add fd08::2/64 dev eth0 nodad
        address add fd09::2/64 dev eth0 nodad
        address add fd08::100/128 dev eth0 nodad
        client: address add 10.8.0.1/24 dev eth0
        client: address add fd08::1/64 dev eth0 nodad");
    for (name, host) in [("server1", 11), ("server2", 12)] {
        ip(&format!(
            "{name}: address add 10.9.0.{host}/24 dev eth0
             {name}: address add fd09::{host}/64 dev eth0 nodad
             {name}: route add default via 10.9.0.2
             {name}: -6 route add default via fd09::2"
        ));
        // All are on one wire: the director would tell the servers that the client can be reached
        // without it, and answers would no longer be translated.
        within(name, || {
            for interface in ["all", "eth0"] {
                set(&format!("ipv4/conf/{interface}/accept_redirects"), "0");
                set(&format!("ipv6/conf/{interface}/accept_redirects"), "0");
            }
        });
    }
    set("ipv4/ip_forward", "1");
    set("ipv6/conf/all/forwarding", "1");
    for interface in ["all", "eth0"] {
        set(&format!("ipv4/conf/{interface}/send_redirects"), "0");
    }
    World
}

/// Starts a server that answers with its name.
fn serve(name: &'static str) {
    let (is_ready, ready) = mpsc::channel();
    thread::spawn(move || {
        enter_peer(name);
        let listener = TcpListener::bind("[::]:80").expect("a listener");
        is_ready.send(()).expect("somebody waits");
        for connection in listener.incoming() {
            let _ = connection.and_then(|mut stream| stream.write_all(name.as_bytes()));
        }
    });
    ready.recv().expect("the server starts");
}

/// Gives the servers the virtual addresses, which they must not announce, and a way to the client that
/// does not lead through the director.
pub(super) fn answer_directly() {
    for name in ["server1", "server2"] {
        within(name, || {
            set("ipv4/conf/all/arp_ignore", "1");
            set("ipv4/conf/all/arp_announce", "2");
        });
        ip(&format!(
            "{name}: address add 10.8.0.100/32 dev lo
             {name}: address add fd08::100/128 dev lo nodad
             {name}: route add 10.8.0.0/24 dev eth0
             {name}: -6 route add fd08::/64 dev eth0"
        ));
    }
}

fn unpack_tunnels() {
    for name in ["server1", "server2"] {
        ip(&format!(
            "{name}: link set tunl0 up
             {name}: link set ip6tnl0 up
             {name}: link set gre0 up
             {name}: fou add port 6080 gue
             {name}: -6 fou add port 6080 gue"
        ));
        within(name, || {
            for interface in ["all", "tunl0", "gre0"] {
                set(&format!("ipv4/conf/{interface}/rp_filter"), "0");
            }
        });
    }
}

/// Connects six times, and counts who answered.
pub(super) fn count_answers(address: &str) -> BTreeMap<String, u32> {
    let address: SocketAddr = address.parse().expect("an address");
    within("client", move || {
        let mut counts = BTreeMap::new();
        for _ in 0..6 {
            let limit = Duration::from_secs(10);
            let answer = TcpStream::connect_timeout(&address, limit).and_then(|mut stream| {
                stream.set_read_timeout(Some(limit))?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                Ok(text)
            });
            let answer = answer.unwrap_or_else(|error| error.to_string());
            *counts.entry(answer).or_default() += 1;
        }
        counts
    })
}

/// Balances connections over both servers, and judges by who answered.
fn check(version: usize, forwarding: IpvsForwarding) {
    let mut ipvs = client();
    ipvs.flush().unwrap();
    let key: IpvsServiceKey = tcp(VIRTUAL[version]);
    ipvs.add_service(&IpvsService::new(key, "rr")).unwrap();
    for server in SERVERS[version] {
        let server = IpvsDestination::new(server.parse().expect("an address"), forwarding);
        ipvs.add_destination(&key, &server).unwrap();
    }
    // A destination that was removed a while ago comes back with the connections that it had.
    let counts = |ipvs: &mut IpvsClient| {
        let all = ipvs.destinations(&key).expect("a list");
        let counts = all.iter().map(|it| it.active_connections + it.inactive_connections);
        counts.collect::<Vec<_>>()
    };
    let before = counts(&mut ipvs);
    let expected = ["server1", "server2"].map(|name| (name.to_owned(), 3));
    assert_eq!(count_answers(VIRTUAL[version]), expected.into(), "{key} {forwarding:?}");
    let expected: Vec<_> = before.iter().map(|count| count + 3).collect();
    assert_eq!(counts(&mut ipvs), expected, "{key} {forwarding:?}");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn connections_reach_the_servers_by_every_method() {
    if !guest::enter() {
        return;
    }
    let _world = build_world();
    serve("server1");
    serve("server2");
    for version in [0, 1] {
        check(version, IpvsForwarding::Nat);
    }
    answer_directly();
    for version in [0, 1] {
        check(version, IpvsForwarding::DirectRouting);
    }
    unpack_tunnels();
    let gue = |checksum| IpvsTunnel::Gue { port: 6080, checksum };
    for version in [0, 1] {
        check(version, IpvsForwarding::Tunnel(IpvsTunnel::Ipip));
        check(version, IpvsForwarding::Tunnel(gue(IpvsTunnelChecksum::None)));
        check(version, IpvsForwarding::Tunnel(gue(IpvsTunnelChecksum::Present)));
    }
    // The interface `gre0` of the servers accepts packets without a checksum only.
    let checksum = IpvsTunnelChecksum::None;
    check(0, IpvsForwarding::Tunnel(IpvsTunnel::Gre { checksum }));
}
