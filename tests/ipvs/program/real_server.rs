//! `lvs real-server`: what it changes, that packets arrive then, and that it leaves what was there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lvs::ipvs::{IpvsDestination, IpvsForwarding, IpvsService, IpvsTunnel, IpvsTunnelChecksum};

use crate::guest;
use crate::inside::sync::enter_peer;
use crate::inside::traffic::{ip, set, within};
use crate::inside::wire::Wire;
use crate::inside::{client, run, tcp};

const MACHINES: [(&str, u8); 3] = [("client", 1), ("director", 2), ("server", 11)];
const VIRTUAL: [&str; 2] = ["10.8.0.100:80", "[fd08::100]:80"];
const SERVERS: [&str; 2] = ["10.8.0.11:80", "[fd08::11]:80"];
const READY: &str = "ready: SIGINT or SIGTERM undoes the changes";

/// The program in the server's namespace.
struct RealServer {
    program: Child,
    output: Box<dyn Iterator<Item = String>>,
}

impl RealServer {
    fn start(arguments: &str) -> Self {
        let arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
        let mut program = within("server", || {
            let mut command = Command::new("lvs");
            command
                .arg("real-server")
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn().expect("the program starts")
        });
        let output = BufReader::new(program.stdout.take().expect("a pipe"));
        let output = Box::new(output.lines().map(|line| line.expect("text")));
        Self { program, output }
    }

    /// Returns the lines until it is ready.
    fn changes(&mut self) -> Vec<String> {
        self.output.by_ref().take_while(|line| line != READY).collect()
    }

    /// Waits for the end, and returns its further lines, and its errors.
    fn finish(mut self) -> (bool, Vec<String>, String) {
        let lines = self.output.collect();
        let mut errors = String::new();
        let stderr = self.program.stderr.take();
        stderr.expect("a pipe").read_to_string(&mut errors).expect("text");
        (self.program.wait().expect("a child").success(), lines, errors)
    }

    /// Ends the program as a service manager does, and returns its further lines.
    fn stop(self) -> Vec<String> {
        let pid = rustix::process::Pid::from_child(&self.program);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let (is_success, lines, errors) = self.finish();
        assert!(is_success, "{errors}");
        lines
    }
}

/// Returns what the program may change.
fn state() -> String {
    let mut state =
        ["-brief link show", "-brief address show", "fou show", "-6 tunnel show ip6tnl0"]
            .map(|arguments| run("ip", &format!("-n server {arguments}")))
            .concat();
    within("server", move || {
        for setting in ["arp_ignore", "arp_announce", "rp_filter"] {
            for interface in ["all", "lo", "eth0", "tunl0", "gre0", "sit0", "ip6tnl0"] {
                let path = format!("/proc/sys/net/ipv4/conf/{interface}/{setting}");
                state += &std::fs::read_to_string(path).expect("a setting");
            }
        }
        state
    })
}

/// Starts a server that answers with its name.
fn serve() {
    let (is_ready, ready) = mpsc::channel();
    thread::spawn(move || {
        enter_peer("server");
        let listener = TcpListener::bind("[::]:80").expect("a listener");
        is_ready.send(()).expect("somebody waits");
        for connection in listener.incoming() {
            let _ = connection.and_then(|mut stream| stream.write_all(b"server"));
        }
    });
    ready.recv().expect("the server starts");
}

/// Connects through the director, which forwards in this way to an address of the server.
fn ask(version: usize, server: &'static str, forwarding: IpvsForwarding) -> Result<String, String> {
    within("director", move || {
        let mut ipvs = client();
        ipvs.flush().unwrap();
        let key = tcp(VIRTUAL[version]);
        ipvs.add_service(&IpvsService::new(key, "rr")).unwrap();
        let server = server.parse().expect("an address");
        ipvs.add_destination(&key, &IpvsDestination::new(server, forwarding)).unwrap();
    });
    within("client", move || {
        let address: SocketAddr = VIRTUAL[version].parse().expect("an address");
        let limit = Duration::from_secs(10);
        let answer = TcpStream::connect_timeout(&address, limit).and_then(|mut stream| {
            stream.set_read_timeout(Some(limit))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        answer.map_err(|error| error.to_string())
    })
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_real_server_is_prepared_and_left_as_it_was() {
    if !guest::enter() {
        return;
    }
    let _wire = Wire::connect(&MACHINES);
    // As the election adds them: of an address that is preferred no longer, the kernel makes no source of
    // outer packets, which a server would refuse, because it has the address too.
    ip("director: address add 10.8.0.100/32 dev eth0
        director: address add fd08::100/128 dev eth0 nodad preferred_lft 0");
    // As many distributions have it: packets that arrive where no answer would leave are dropped.
    within("server", || set("ipv4/conf/all/rp_filter", "1"));
    serve();
    let before = state();
    let gue = IpvsTunnel::Gue { port: 6080, checksum: IpvsTunnelChecksum::None };
    let gre = IpvsTunnel::Gre { checksum: IpvsTunnelChecksum::None };
    let both = "--vip 10.8.0.100 --vip fd08::100";
    let arp = [
        "set net.ipv4.conf.all.arp_ignore from 0 to 1",
        "set net.ipv4.conf.all.arp_announce from 0 to 2",
    ];
    let filter = "set net.ipv4.conf.tunl0.rp_filter from 0 to 2";
    let tunnels = [filter, "set tunl0 up", "set ip6tnl0 up"];
    let devices = ["tunl0", "ip6tnl0"];
    let gue_ports = [
        filter,
        "set tunl0 up",
        "added the GUE port 6080",
        "set ip6tnl0 up",
        "added the GUE port 6080 over IPv6",
    ];
    let gre0 = ["set net.ipv4.conf.gre0.rp_filter from 0 to 2", "set gre0 up"];
    let over_ipv4 = [filter, "set tunl0 up", "added the GUE port 6080", "set sit0 up"];
    let over_ipv6 = [
        "set net.ipv4.conf.ip6tnl0.rp_filter from 0 to 2",
        "set the mode of ip6tnl0 from ip6ip6 to any",
        "set ip6tnl0 up",
    ];
    for (arguments, forwarding, interfaces, changes) in [
        (both.to_owned(), IpvsForwarding::DirectRouting, &["lo", "lo"][..], &[][..]),
        (
            format!("{both} --method tunnel --tunnel gue --port 6080 --over ipv4"),
            IpvsForwarding::Tunnel(gue),
            &["tunl0", "sit0"],
            &over_ipv4,
        ),
        (
            format!("{both} --method tunnel --over ipv6"),
            IpvsForwarding::Tunnel(IpvsTunnel::Ipip),
            &["ip6tnl0", "ip6tnl0"],
            &over_ipv6,
        ),
        (
            format!("{both} --method tunnel"),
            IpvsForwarding::Tunnel(IpvsTunnel::Ipip),
            &devices,
            &tunnels,
        ),
        (
            format!("{both} --method tunnel --tunnel gue --port 6080"),
            IpvsForwarding::Tunnel(gue),
            &devices,
            &gue_ports,
        ),
        (
            "--vip 10.8.0.100 --method tunnel --tunnel gre".to_owned(),
            IpvsForwarding::Tunnel(gre),
            &["gre0"],
            &gre0,
        ),
    ] {
        let mut program = RealServer::start(&arguments);
        let addresses = ["10.8.0.100", "fd08::100"].into_iter().zip(interfaces);
        let mut expected: Vec<_> = arp.iter().chain(changes).map(|&line| line.to_owned()).collect();
        expected.extend(
            addresses.map(|(address, interface)| format!("added {address} to {interface}")),
        );
        assert_eq!(program.changes(), expected, "{arguments}");
        for version in 0..interfaces.len() {
            let outer = match arguments.rsplit_once("--over ipv") {
                Some((_, family)) => usize::from(family == "6"),
                None => version,
            };
            let answer = ask(version, SERVERS[outer], forwarding);
            assert_eq!(answer.as_deref(), Ok("server"), "{arguments}");
        }
        let undone = program.stop();
        assert_eq!(undone.len(), expected.len(), "{undone:?}");
        assert_eq!(state(), before, "{arguments}: {undone:?}");
    }

    // A tunnel that takes packets of the other family alone has its mode again.
    ip("server: -6 tunnel change ip6tnl0 mode ipip6");
    let with_mode = state();
    let mut program = RealServer::start("--vip fd08::100 --method tunnel");
    assert_eq!(program.changes()[0], "set the mode of ip6tnl0 from ipip6 to any");
    program.stop();
    assert_eq!(state(), with_mode);
    ip("server: -6 tunnel change ip6tnl0 mode ip6ip6");

    // What is as it should be is neither changed nor undone, and what another program changes stays.
    ip("server: address add 10.8.0.100/32 dev lo");
    within("server", || set("ipv4/conf/all/arp_ignore", "2"));
    let with_address = state();
    let mut program = RealServer::start("--vip 10.8.0.100");
    assert_eq!(program.changes(), arp[1..]);
    assert_eq!(program.stop(), ["set net.ipv4.conf.all.arp_announce from 2 to 0"]);
    assert_eq!(state(), with_address);
    let mut program = RealServer::start("--vip 10.8.0.100");
    assert_eq!(program.changes(), arp[1..]);
    within("server", || set("ipv4/conf/all/arp_announce", "1"));
    let left = "left net.ipv4.conf.all.arp_announce at 1: another program has changed it";
    assert_eq!(program.stop(), [left]);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_real_server_that_cannot_be_prepared_is_left_as_it_was() {
    if !guest::enter() {
        return;
    }
    let _wire = Wire::connect(&MACHINES);
    ip("server: address add 10.8.0.100/32 dev eth0
        server: fou add port 6080 gue");
    let before = state();
    let announced = "10.8.0.100 is an address of eth0, which announces it";
    let port = "`ip -4 fou add port 6080 gue` failed: ";
    for (arguments, reason) in [
        ("--vip 10.8.0.100", announced),
        ("--vip 10.8.0.101 --method tunnel --tunnel gue --port 6080", port),
    ] {
        let (is_success, lines, errors) = RealServer::start(arguments).finish();
        assert!(!is_success && errors.contains(reason), "{arguments}: {errors}");
        assert!(!lines.iter().any(|line| line == READY), "{lines:?}");
        assert_eq!(state(), before, "{arguments}: {lines:?}");
    }
}
