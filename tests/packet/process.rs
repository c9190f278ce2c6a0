//! An engine in a process of its own, which a test can stop and kill.
//!
//! The process is this very test binary. It does what is written to its standard input, a line each, and answers
//! each line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::{env, thread};

use lvs::engine::{Engine as _, EngineProtocol};
use lvs::packet::{PacketEngine, PacketSettings};
use lvs::scheduler::RoundRobin;
use rustix::process::{Pid, Signal, kill_process};

use crate::carried::{PATIENCE, begin, request};
use crate::flows::active;
use crate::world::{SERVERS, World, socket_address};

/// The variable that makes a process of this program an engine: namespace, folder and flows.
const ROLE: &str = "LVS_TEST_ENGINE";
/// What an answer begins with: the test harness prints lines, too.
const ANSWER: &str = "the engine: ";

/// A process with an engine, which is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct EngineProcess {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl EngineProcess {
    /// Starts an engine that has taken over what an earlier one left, and serves nothing yet.
    pub(crate) fn load(world: &World, flows: u32) -> Self {
        let (namespace, folder) = (world.namespace("director"), world.pin_folder());
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "process::the_engine_of_a_test", "--ignored", "--nocapture"])
            .env(ROLE, format!("{namespace} {} {flows}", folder.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, answers) = channel();
        thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            for answer in lines.filter_map(|line| Some(line.split_once(ANSWER)?.1.to_owned())) {
                // The test may have ended.
                let _ = sender.send(answer);
            }
        });
        let process = Self { child, input, answers };
        process.answer();
        process
    }

    /// Starts an engine that serves both servers.
    pub(crate) fn start(world: &World) -> Self {
        let mut process = Self::load(world, 4096);
        process.ask("claim");
        process
    }

    /// Has it do something, and returns its answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("it reads");
        self.answer()
    }

    /// Returns the flows of the service that have a lease.
    pub(crate) fn active(&mut self) -> u32 {
        self.ask("active").parse().expect("a number")
    }

    fn answer(&self) -> String {
        self.answers.recv_timeout(PATIENCE).expect("the process answers")
    }

    /// Ends it; the service is left to a successor.
    pub(crate) fn hand_over(mut self) {
        self.ask("hand over");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }

    /// Kills it with a signal that it cannot handle.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs an engine until its input ends, or it is killed; for other tests, which start it.
#[test]
#[ignore = "started by other tests"]
fn the_engine_of_a_test() {
    let Some(role) = env::var_os(ROLE) else { return };
    let role = role.into_string().expect("text");
    let parts: Vec<_> = role.split(' ').collect();
    World::enter_namespace(parts[0]);
    let mut settings = PacketSettings::default();
    settings.pin_folder = parts[1].into();
    settings.flows = parts[2].parse().expect("a number");
    settings.ipv6_flows = settings.flows;
    let engine = PacketEngine::start(settings).expect("the engine");
    let mut services = Vec::new();
    println!("{ANSWER}started");
    for command in std::io::stdin().lines() {
        let answer = match &*command.expect("text") {
            "claim" => {
                services.push(begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new()));
                services.push(begin(&engine, EngineProtocol::Udp, 0, RoundRobin::new()));
                "claimed".to_owned()
            }
            "claim with one more server" => {
                let (set, request) = request(EngineProtocol::Tcp, 0, RoundRobin::new());
                set.insert(socket_address(SERVERS[0][0], 8081)).expect("a server");
                let claim = engine.claim(request).expect("it can be served");
                services.push((set, claim.begin().expect("it is served")));
                "claimed".to_owned()
            }
            "active" => services.iter().map(|(set, _)| active(set)).sum::<u32>().to_string(),
            "hand over" => {
                services.iter().for_each(|(_, service)| service.hand_over());
                drop(engine);
                println!("{ANSWER}handed over");
                return;
            }
            other => panic!("{other}"),
        };
        println!("{ANSWER}{answer}");
    }
}
