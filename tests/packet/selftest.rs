//! The case of NAT of the kernel's own test of IPVS, over this engine.
//!
//! The script is the kernel's (`tools/testing/selftests/netfilter/ipvs.sh` of Linux 6.1, in Debian's package
//! `linux-source-6.1`) and is not part of this project. It needs root, `ip`, `nc` of netcat-traditional, and
//! `unshare`:
//!
//! ```text
//! LVS_IPVS_SELFTEST=.../ipvs.sh cargo test --test packet selftest::the_nat -- --ignored --exact --nocapture
//! ```
//! In place of `ipvsadm` it calls this test binary, which passes the arguments on to the test, where the engine
//! is. In place of `modprobe` it calls a program that does nothing: there is no module.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, thread};

use lvs::engine::{Engine as _, EngineAddress, EngineProtocol, EngineRequest, EngineService};
use lvs::packet::{PacketEngine, PacketKernelState};
use lvs::{BackendSet, Balancer, scheduler};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::carried::settings;
use crate::flows::until;
use crate::recorded::until_known;
use crate::world::World;

/// The script.
const SCRIPT: &str = "LVS_IPVS_SELFTEST";
/// The arguments of `ipvsadm`, and the socket of the test.
const ARGUMENTS: &str = "LVS_TEST_IPVSADM";
const SOCKET: &str = "LVS_TEST_SOCKET";

/// What is done with the arguments of `ipvsadm`.
#[derive(Default)]
struct IpvsadmStandIn {
    engine: Option<PacketEngine>,
    set: BackendSet<SocketAddr>,
    service: Option<Box<dyn EngineService>>,
}

impl IpvsadmStandIn {
    /// Does what a line says: the process that has the arguments, and these.
    fn run(&mut self, world: &World, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        let value = |option| {
            let at = words.iter().position(|word| *word == option);
            words[at.unwrap_or_else(|| panic!("no {option} in {line}")) + 1]
        };
        let address: SocketAddr = value("-t").parse().expect("an address");
        match words[1] {
            "-A" => {
                let process = words[0];
                let start = || {
                    let namespace = File::open(format!("/proc/{process}/ns/net")).expect("it runs");
                    let kind = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(namespace.as_fd(), kind).expect("root enters it");
                    PacketEngine::start(settings(world)).expect("the engine")
                };
                let engine = thread::scope(|scope| scope.spawn(start).join().expect("no panic"));
                let rule = scheduler::parse(value("-s")).expect("a known scheduler");
                let balancer = Balancer::new(&self.set, rule).expect("a balancer");
                let protocol = EngineProtocol::Tcp;
                let address = EngineAddress::Socket { protocol, address };
                let request = EngineRequest::new("selftest", address, balancer, value("-s"));
                let claim = engine.claim(request).expect("it can be served");
                self.service = Some(claim.begin().expect("it is served"));
                self.engine = Some(engine);
            }
            "-a" => {
                assert!(words.contains(&"-m"), "the engine has NAT alone: {line}");
                let server: SocketAddr = value("-r").parse().expect("an address");
                self.set.insert(server).expect("a new server");
                until_known(world, server);
            }
            other => panic!("{other}"),
        }
    }
}

/// Writes the programs that the script finds first.
fn write_programs(folder: &Path, socket: &Path) {
    let test = env::current_exe().expect("this program");
    let ipvsadm = format!(
        "#!/bin/sh\n[ \"$1\" = -v ] && exit 0\n{ARGUMENTS}=\"$*\" {SOCKET}={} \
         exec {} --exact selftest::ipvsadm_of_the_selftest --ignored\n",
        socket.display(),
        test.display()
    );
    for (name, text) in [("ipvsadm", &*ipvsadm), ("modprobe", "#!/bin/sh\n")] {
        let path = folder.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    }
}

#[test]
#[ignore = "needs a script of the kernel"]
fn the_nat_case_passes() {
    let script =
        PathBuf::from(env::var_os(SCRIPT).unwrap_or_else(|| panic!("{SCRIPT} is not set")));
    let world = World::build().expect("root");
    let folder = env::temp_dir().join(world.namespace("selftest"));
    fs::create_dir(&folder).expect("a folder");
    let socket = folder.join("socket");
    write_programs(&folder, &socket);
    let text = fs::read_to_string(&script).expect("the script");
    let (functions, _) =
        text.split_once("\ntrap cleanup EXIT\n").expect("the script that is known");
    // Its namespaces have fixed names: they are of this run alone.
    let run =
        format!("{functions}\ntrap cleanup EXIT\ncleanup\nsetup\ntest_nat && echo nat passes\n");
    fs::write(folder.join("nat.sh"), run).expect("a file");

    let listener = UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("an option");
    let path = format!("{}:{}", folder.display(), env::var("PATH").unwrap_or_default());
    let script = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs none /run/netns && exec sh \"$0\""])
        .arg(folder.join("nat.sh"))
        .current_dir(script.parent().expect("a folder"))
        .env("PATH", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("unshare runs");
    let mut stand_in = IpvsadmStandIn::default();
    for _ in ["-A", "-a"] {
        let mut accepted = None;
        until("ipvsadm is called", || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let (mut stream, _) = accepted.expect("a connection");
        stream.set_nonblocking(false).expect("an option");
        let mut line = String::new();
        stream.read_to_string(&mut line).expect("arguments");
        stand_in.run(&world, &line);
        stream.write_all(b"done").expect("it waits");
    }
    let output = script.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success() && text.contains("nat passes"), "{:?}", output.status);
    assert!(!text.to_lowercase().contains("skip"), "a skip is a failure");
    let engine = stand_in.engine.as_ref().expect("it was started");
    until("the scheduler has decided", || engine.statistics().upcalls > 0);
    let state =
        PacketKernelState::read(&world.pin_folder()).expect("maps").expect("they are there");
    assert_eq!((state.flows, state.statistics.table_decisions), (1, 0), "{state:?}");
    let server = state.services[0].servers[0];
    assert!(server.bytes_in > 32 && server.bytes_out > Some(0), "{server:?}");
    println!("{:?}", state.statistics);
    fs::remove_dir_all(&folder).expect("it is there");
}

/// Passes the arguments on to the test; the test calls it in place of `ipvsadm`.
#[test]
#[ignore = "started by another test"]
fn ipvsadm_of_the_selftest() {
    let (Ok(arguments), Some(socket)) = (env::var(ARGUMENTS), env::var_os(SOCKET)) else { return };
    let mut stream = UnixStream::connect(socket).expect("the test listens");
    write!(stream, "{} {arguments}", std::process::id()).expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "done");
}
