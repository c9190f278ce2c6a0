//! The kernel's own test of IPVS, over this engine: direct routing, network address translation, and a tunnel.
//!
//! The script is the kernel's (`tools/testing/selftests/netfilter/ipvs.sh` of Linux 6.1, in Debian's package
//! `linux-source-6.1`) and is not part of this project. It runs as it is. It needs root, `ip`, `sysctl`, `nc` of
//! netcat-traditional, `timeout` and `unshare`:
//!
//! ```text
//! LVS_IPVS_SELFTEST=.../ipvs.sh cargo test --test packet selftest::the_three -- --ignored --nocapture
//! ```
//! Four programs stand before the system's in the script's path:
//! - `ipvsadm` is this test binary, which passes the arguments on to the test, where the engine is.
//! - `modprobe` succeeds for `ip_vs` and `ipip`, and does nothing: the engine needs no module.
//! - `ip` does what the system's does, but for `link set tunl0 up`, the device of module `ipip`. The server's machine
//!   gets the program of `tests/packet/decapsulation` instead, and the director's machine needs nothing.
//! - `sysctl` does nothing for the parameter of that device, and what the system's does for all others.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use aya::Ebpf;
use lvs::engine::{
    Engine as _, EngineAddress, EngineProtocol, EngineRequest, EngineService, ForwardingMethod,
    ForwardingMethods, NewConnections, TunnelKind,
};
use lvs::packet::{PacketEngine, PacketKernelState};
use lvs::{BackendSet, Balancer, scheduler};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::carried::settings;
use crate::decapsulation::attach_decapsulation;
use crate::flows::until;
use crate::recorded::until_known;
use crate::world::World;

/// The script.
const SCRIPT: &str = "LVS_IPVS_SELFTEST";
/// The arguments of a program, and the socket of the test.
const ARGUMENTS: &str = "LVS_TEST_IPVSADM";
const SOCKET: &str = "LVS_TEST_SOCKET";

/// The server's device to the director.
const SERVER_DEVICE: &str = "veth21";
/// What the script sends to the server by a connection, in octets.
const DATA_LEN: u64 = 32;

/// The service of a case of the script.
struct CaseService {
    engine: PacketEngine,
    service: Box<dyn EngineService>,
    set: BackendSet<SocketAddr>,
    methods: ForwardingMethods,
}

/// Does what the script asks of programs that this machine does not have.
struct StandIn<'a> {
    world: &'a World,
    case: Option<CaseService>,
    unpacking: Option<Ebpf>,
    /// The methods of the cases that have passed the engine.
    methods: Vec<ForwardingMethod>,
}

impl StandIn<'_> {
    /// Does what a line says: the process that has the arguments, and these.
    fn run(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        let (process, arguments) = words.split_first().expect("a process");
        match *arguments {
            ["-A", "-t", address, "-s", rule] => {
                self.end_case();
                let address = address.parse().expect("an address");
                self.case = Some(begin_case(self.world, process, address, rule));
            }
            ["-a", "-t", _, "-r", server] => {
                self.add_server(server, ForwardingMethod::DirectRouting);
            }
            ["-a", "-m", "-t", _, "-r", server] => self.add_server(server, ForwardingMethod::Nat),
            ["-a", "-i", "-t", _, "-r", server] => {
                self.add_server(server, ForwardingMethod::Tunnel(TunnelKind::Ipip));
            }
            ["link", "set", "tunl0", "up"] => {
                let attach = || attach_decapsulation(SERVER_DEVICE).expect("the program");
                self.unpacking = Some(within(process, attach));
            }
            _ => panic!("the script is another one: {line}"),
        }
    }

    fn add_server(&self, server: &str, method: ForwardingMethod) {
        let case = self.case.as_ref().expect("a service");
        let server: SocketAddr = server.parse().expect("an address");
        case.methods.replace([(server.into(), method)].into());
        case.set.insert(server).expect("a new server");
        until_known(self.world, server);
    }

    /// Checks what the engine has done for a case, which is over, and stops the engine.
    fn end_case(&mut self) {
        let Some(case) = self.case.take() else { return };
        until("the scheduler has decided", || case.engine.statistics().upcalls > 0);
        let state = PacketKernelState::read(&self.world.pin_folder()).expect("maps");
        let state = state.expect("they are there");
        assert_eq!((state.flows, state.statistics.table_decisions), (1, 0), "{state:?}");
        let server = state.services[0].servers[0];
        println!(
            "{:?}: octets to the server {}, from it {:?}, {:?}",
            server.method, server.bytes_in, server.bytes_out, state.statistics
        );
        assert!(server.bytes_in > DATA_LEN, "{server:?}");
        // By direct routing and by a tunnel the server answers by itself.
        let is_nat = server.method == ForwardingMethod::Nat;
        assert_eq!(server.bytes_out.is_some_and(|octets| octets > 0), is_nat, "{server:?}");
        self.methods.push(server.method);
        case.service.drain(Duration::ZERO, NewConnections::Refused);
    }
}

/// Starts an engine on a process's machine, with a service without servers.
fn begin_case(world: &World, process: &str, address: SocketAddr, rule: &str) -> CaseService {
    let engine =
        within(process, || PacketEngine::start(settings(world)).expect("the engine starts"));
    let set = BackendSet::new();
    let balancer = scheduler::parse(rule).expect("a known scheduler");
    let balancer = Balancer::new(&set, balancer).expect("a balancer");
    let address = EngineAddress::Socket { protocol: EngineProtocol::Tcp, address };
    let request = EngineRequest::new("selftest", address, balancer, rule);
    let methods = request.methods.clone();
    let claim = engine.claim(request).expect("it can be served");
    let service = claim.begin().expect("it is served");
    CaseService { engine, service, set, methods }
}

/// Runs a function in the network namespace of a process.
fn within<R: Send>(process: &str, run: impl FnOnce() -> R + Send) -> R {
    let run = || {
        let namespace = File::open(format!("/proc/{process}/ns/net")).expect("it runs");
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).expect("root enters it");
        run()
    };
    thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

/// Writes the programs that the script finds first.
fn write_programs(folder: &Path, socket: &Path) {
    let test = env::current_exe().expect("this program");
    let pass_on = format!(
        "{ARGUMENTS}=\"$*\" {SOCKET}={} exec {} --exact selftest::program_of_the_selftest --ignored >/dev/null",
        socket.display(),
        test.display()
    );
    // The system's program; those that it starts by `netns exec` are looked for in the script's path.
    let other = |name: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut paths = env::split_paths(&path).map(|folder| folder.join(name));
        let program = paths.find(|path| path.exists()).expect("the program");
        format!("exec {} \"$@\"\n", program.display())
    };
    let ip = format!(
        "[ \"$*\" = 'link set tunl0 up' ] || {}[ -e /sys/class/net/{SERVER_DEVICE} ] || exit 0\n{pass_on}\n",
        other("ip")
    );
    let device = "-qw net.ipv4.conf.tunl0.rp_filter=0";
    for (name, text) in [
        ("ipvsadm", format!("[ \"$1\" = -v ] && exit 0\n{pass_on}\n")),
        ("modprobe", "[ \"$*\" = '-q ip_vs' ] || [ \"$*\" = ipip ]\n".to_owned()),
        ("ip", ip),
        ("sysctl", format!("[ \"$*\" = '{device}' ] || {}", other("sysctl"))),
    ] {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    }
}

#[test]
#[ignore = "needs a script of the kernel"]
fn the_three_cases_pass() {
    let script =
        PathBuf::from(env::var_os(SCRIPT).unwrap_or_else(|| panic!("{SCRIPT} is not set")));
    let world = World::build().expect("root");
    let folder = env::temp_dir().join(world.namespace("selftest"));
    fs::create_dir(&folder).expect("a folder");
    let socket = folder.join("socket");
    write_programs(&folder, &socket);

    let listener = UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("an option");
    let path = format!("{}:{}", folder.display(), env::var("PATH").unwrap_or_default());
    // Its namespaces have fixed names: they are of this run alone. A case that gets no connection would wait forever.
    let mut child = Command::new("timeout")
        .args(["60", "unshare", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs none /run/netns && exec sh \"$0\"")
        .arg(&script)
        .current_dir(script.parent().expect("a folder"))
        .env("PATH", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("timeout runs");
    let mut stand_in = StandIn { world: &world, case: None, unpacking: None, methods: Vec::new() };
    while child.try_wait().expect("a child").is_none() {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_nonblocking(false).expect("an option");
        let mut line = String::new();
        stream.read_to_string(&mut line).expect("arguments");
        stand_in.run(&line);
        stream.write_all(b"done").expect("it waits");
    }
    let output = child.wait_with_output().expect("it has ended");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success() && text.contains("PASS"), "{:?}", output.status);
    assert!(!text.to_lowercase().contains("skip"), "a skip is a failure");
    stand_in.end_case();
    let tunnel = ForwardingMethod::Tunnel(TunnelKind::Ipip);
    let methods = [ForwardingMethod::DirectRouting, ForwardingMethod::Nat, tunnel];
    assert_eq!(stand_in.methods, methods);
    fs::remove_dir_all(&folder).expect("it is there");
}

/// Passes the arguments on to the test; the script calls it in place of another program.
#[test]
#[ignore = "started by another test"]
fn program_of_the_selftest() {
    let (Ok(arguments), Some(socket)) = (env::var(ARGUMENTS), env::var_os(SOCKET)) else { return };
    let mut stream = UnixStream::connect(socket).expect("the test listens");
    write!(stream, "{} {arguments}", std::process::id()).expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "done");
}
