//! Measures what a path through the engines of `lvs` costs, beside plain forwarding, `nft` and HAProxy.
//!
//! ```text
//! cargo run --release --manifest-path benches/path/Cargo.toml
//!     [-- --quick] [--only request --only program ..] [--subject packet-upcall ..] [--rounds 7]
//!     [--output FILE.csv]
//! ```
//! It needs root, and makes network namespaces and a BPF file system of its own, which are gone at the end.
//! HAProxy and `nft` are reported and left out where they are not installed. `--quick` is a smoke test of
//! some seconds: its figures mean nothing.
//!
//! # The figures
//! A figure is the processor time of all that takes part in a unit of work: the client, the server, and what
//! is between them, kernel and programs together. All of it is on one core. A request has 46 octets and its
//! answer 218.
//!
//! By a tunnel, the server takes packets out of others by a program of `tests/packet/decapsulation` at the ingress of
//! its device, because not every kernel has the modules of tunnels: what a server's side of a tunnel costs is what
//! that program costs.
//!
//! # The method
//! Each subject has a director of its own. They are measured one after the other for an eighth of a second,
//! eight times a round, in reverse order every other time. A ratio is the median over rounds of the ratio in
//! the same round, with the interval that the true median is in with a certainty of 95 %. Plain forwarding
//! is measured twice (`forwarding-aa`), by two directors of one kind: what their ratio may be is noise. A bar
//! is met or not if that noise and the interval of the figure leave no doubt. Every answer is compared octet for octet; an error ends
//! the run.

mod accounting;
mod bars;
#[path = "../../../tests/packet/decapsulation/mod.rs"]
mod decapsulation;
mod engines;
mod load;
#[path = "../../forward/src/messages.rs"]
mod messages;
mod network;
#[path = "../../forward/src/process.rs"]
#[expect(dead_code, reason = "that benchmark uses two cores, and measures single processes")]
mod process;
mod program;
mod repeated;
mod repeated_packet;
mod report;
mod running;
mod server;
mod spec;
mod statistics;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use nix::sched::{CpuSet, sched_getaffinity};

use crate::engines::PacketOrder;
use crate::program::ProgramPlan;
use crate::repeated::RepeatOrder;
use crate::report::MeasureResults;
use crate::running::{LoadFigures, Stage};
use crate::spec::{Measure, Subject};

/// Children get more of their core than others on the machine.
const PRIORITY: i32 = -20;

#[derive(Debug, Parser)]
#[command(about = "Measures what a path through the engines costs.")]
struct Arguments {
    /// Run a smoke test; its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Measure only this.
    #[arg(long, value_enum)]
    only: Vec<Measure>,
    /// Measure only these subjects.
    #[arg(long, value_enum)]
    subject: Vec<Subject>,
    /// The number of rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// The CSV file for the figures of all rounds.
    #[arg(long)]
    output: Option<PathBuf>,
    #[arg(long, hide = true)]
    core: Option<usize>,
    #[arg(long, hide = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The role of this program as a child of itself.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Client,
    #[command(hide = true)]
    Server,
    #[command(hide = true)]
    Proxy { listen: SocketAddr, servers: Vec<SocketAddr> },
    #[command(hide = true)]
    Packet(PacketOrder),
    #[command(hide = true)]
    Repeat(RepeatOrder),
    #[command(hide = true)]
    Exec {
        program: OsString,
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.part.is_some() {
        process::enter(arguments.core)?;
        raise_priority().context("cannot get a priority")?;
        if let Some(namespace) = &arguments.namespace {
            network::enter_namespace(namespace)?;
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &arguments.part {
        None => runtime.block_on(async {
            tokio::select! {
                ran = run(&arguments) => ran,
                // Children are killed, and namespaces removed, when they are dropped.
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            }
        }),
        Some(Part::Client) => {
            runtime.block_on(load::serve(arguments.core.context("a client without a core")?))
        }
        Some(Part::Server) => runtime.block_on(server::serve()),
        Some(Part::Proxy { listen, servers }) => {
            runtime.block_on(engines::serve_connections(*listen, servers))
        }
        Some(Part::Packet(order)) => runtime.block_on(engines::serve_packets(order)),
        Some(Part::Repeat(order)) => runtime.block_on(repeated::serve(order)),
        Some(Part::Exec { program, arguments }) => process::exec(program, arguments),
    }
}

/// Gives the process more of its core than others.
fn raise_priority() -> Result<()> {
    // With automatic groups a priority is one among those of a session, and the session has one itself.
    rustix::process::setsid()?;
    rustix::process::nice(PRIORITY)?;
    match std::fs::write("/proc/self/autogroup", PRIORITY.to_string()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => Ok(written?),
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    process::raise_descriptors()?;
    let core = choose_core()?;
    println!("{}", describe_machine(core));
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let is_wanted =
        |measure: Measure| arguments.only.is_empty() || arguments.only.contains(&measure);
    let compared: Vec<_> = Measure::COMPARED.into_iter().filter(|it| is_wanted(*it)).collect();
    let mut all = Vec::new();
    if !compared.is_empty() {
        all = compare(arguments, &compared, folder.path(), core).await?;
        if !arguments.quick {
            println!("{}", bars::table(&all));
        }
    }
    let mut rows = Vec::new();
    if is_wanted(Measure::Program) || is_wanted(Measure::Flows) {
        let plan = plan(arguments, is_wanted(Measure::Flows));
        rows = program::measure(folder.path(), core, plan).await?;
    }
    if let Some(path) = &arguments.output {
        report::write(path, &all, &rows)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("load averages at the end: {}", load_averages());
    Ok(())
}

/// Returns how much is done with the program of the packet engine.
fn plan(arguments: &Arguments, holds_flows: bool) -> ProgramPlan {
    match arguments.quick {
        true => ProgramPlan { rounds: 1, packets: 10_000, many: 1 << 13, held: 1 << 14 },
        false => ProgramPlan {
            rounds: 2 * arguments.rounds.max(1),
            packets: 1 << 20,
            many: 1 << 20,
            held: if holds_flows { 1 << 21 } else { 1 << 20 },
        },
    }
}

/// Measures all subjects, which run at the same time and are measured one after the other.
async fn compare(
    arguments: &Arguments,
    measures: &[Measure],
    folder: &std::path::Path,
    core: usize,
) -> Result<Vec<MeasureResults>> {
    let (rounds, slices, time) = match arguments.quick {
        true => (1, 1, Duration::from_millis(100)),
        false => (arguments.rounds.max(1), 8, Duration::from_millis(125)),
    };
    let mut stage = Stage::build(folder, core).await?;
    let mut running = Vec::new();
    for (number, subject) in (1..).zip(subjects(arguments)) {
        let started = stage.start(subject, number).await;
        running.push(started.with_context(|| subject.name())?);
    }
    let mut all = Vec::new();
    for &measure in measures {
        let mut columns: Vec<_> = running.iter().map(|it| (it.subject, Vec::new())).collect();
        for _ in 0..rounds {
            let mut parts = vec![Vec::new(); running.len()];
            for slice in 0..slices {
                for index in order(running.len(), slice) {
                    let subject = &mut running[index];
                    let figures = stage.measure(subject, measure, time).await;
                    parts[index].push(figures.with_context(|| subject.describe())?);
                }
            }
            for ((_, figures), parts) in columns.iter_mut().zip(&parts) {
                figures.push(LoadFigures::sum(parts));
            }
        }
        let results = MeasureResults { measure, columns };
        println!("{}", results.table());
        all.push(results);
    }
    // The engine publishes its counters once a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for mut subject in running {
        if let Some(report) = subject.report().await? {
            println!("{}", report::decisions(subject.subject, report));
            let asks_scheduler = subject.subject.asks_scheduler() == Some(true);
            running::check_report(report, asks_scheduler).with_context(|| subject.describe())?;
        }
        subject.end().await?;
    }
    println!();
    Ok(all)
}

/// Returns the subjects that are wanted and can be here.
fn subjects(arguments: &Arguments) -> Vec<Subject> {
    use clap::ValueEnum as _;
    let all = Subject::value_variants().iter().copied();
    let wanted = all.filter(|it| arguments.subject.is_empty() || arguments.subject.contains(it));
    let is_there = |subject: &Subject| {
        let program = match subject {
            Subject::Nft => "nft",
            Subject::Haproxy => "haproxy",
            _ => return true,
        };
        let found = is_installed(program);
        if !found {
            println!("{program}: not installed, left out");
        }
        found
    };
    wanted.filter(is_there).collect()
}

/// Returns the order of the subjects: reversed every other time.
fn order(subjects: usize, slice: usize) -> Vec<usize> {
    let forwards = 0..subjects;
    if slice.is_multiple_of(2) { forwards.collect() } else { forwards.rev().collect() }
}

/// Returns the last core that this process may run on: interrupts of devices are mostly at the first.
fn choose_core() -> Result<usize> {
    let allowed = sched_getaffinity(nix::unistd::Pid::from_raw(0)).context("sched_getaffinity")?;
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    cores.next_back().context("no core to run on")
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    folders.any(|folder| folder.join(program).is_file())
}

fn describe_machine(core: usize) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    format!(
        "{}, Linux {}, all on core {core}, programs in the kernel are {}; load averages {}\n",
        model.unwrap_or("unknown processor"),
        read("/proc/sys/kernel/osrelease").trim(),
        if read("/proc/sys/net/core/bpf_jit_enable").trim() == "0" {
            "interpreted"
        } else {
            "compiled"
        },
        load_averages(),
    )
}

fn load_averages() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
