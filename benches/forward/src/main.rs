//! Compares the cost of the forwarder of `lvs` with HAProxy and nginx in one run.
//!
//! ```text
//! cargo run --release --manifest-path benches/forward/Cargo.toml
//!     [-- --quick] [--only W1 --only W3a ..] [--rounds 7] [--before OTHER_BUILD]
//!     [--output FILE.csv]
//! ```
//! Peers that are not installed are reported and left out. `--quick` is a smoke test of all workloads
//! in well under a minute: its figures mean nothing. `--before` compares with an earlier build of this
//! program, such as one of the commit before a change.
//!
//! # The figures
//! A figure is the processor time of the forwarder's process for a unit of work: a request, a
//! connection, a gigabyte, a datagram. It is the time that its threads were on a processor, as the
//! scheduler counts it in nanoseconds (`/proc/PID/task/*/schedstat`), kernel and program together; on
//! loopback a send includes the receiver's TCP input. The time of the kernel's own threads and of
//! other processes is not included: load and backends run on another core, and if that core is the
//! bottleneck, a rate says little. Resident memory (W4) is that of the process, without the kernel's
//! memory for its sockets.
//!
//! # The method
//! Each subject is measured for a second in each round, in reverse order every other round. A ratio is
//! the median over rounds of the subject's figure divided by the reference's in the same round, with
//! the least and the most. The reference runs twice (`-aa`), as two processes of one configuration: a
//! ratio inside the spread of that pair is parity. Every answer is compared byte for byte; an error
//! ends the run.

mod backend;
mod cell;
mod lvs;
mod machine;
mod messages;
mod process;
mod report;
mod running;
mod subject;
mod traffic;
mod workload;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::backend::Backends;
use crate::machine::{Machine, Peers};
use crate::process::{Child, Cores};
use crate::report::Results;
use crate::running::{Running, Stage};
use crate::subject::Subject;
use crate::workload::order::Order;
use crate::workload::spec::{Id, Workload};
use crate::workload::{balance, idle};

#[derive(Debug, Parser)]
#[command(about = "Compares the cost of the forwarder with HAProxy and nginx.")]
struct Arguments {
    /// Run a smoke test of all workloads; its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Run only these workloads.
    #[arg(long, value_enum)]
    only: Vec<Id>,
    /// The number of rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// An earlier build of this program, whose forwarder is measured in the same rounds.
    #[arg(long)]
    before: Option<PathBuf>,
    /// The CSV file for the figures of all rounds.
    #[arg(long)]
    output: Option<PathBuf>,
    #[arg(long, hide = true)]
    core: Option<usize>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The role of this program as a child of itself.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Load(Order),
    #[command(hide = true)]
    Backends,
    #[command(hide = true)]
    Lvs {
        #[arg(long)]
        workers: usize,
        #[arg(long)]
        udp: bool,
        backends: Vec<SocketAddr>,
    },
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
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &arguments.part {
        None => runtime.block_on(async {
            tokio::select! {
                ran = run(&arguments) => ran,
                // Children are killed when they are dropped.
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            }
        }),
        Some(Part::Load(order)) => runtime.block_on(workload::load(order)),
        Some(Part::Backends) => runtime.block_on(backend::serve()),
        Some(Part::Lvs { workers, udp: false, backends }) => {
            runtime.block_on(lvs::tcp(backends, *workers))
        }
        Some(Part::Lvs { workers, udp: true, backends }) => {
            runtime.block_on(lvs::udp(backends, *workers))
        }
        Some(Part::Exec { program, arguments }) => process::exec(program, arguments),
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let descriptors = process::raise_descriptors()?;
    if let Some(before) = &arguments.before {
        anyhow::ensure!(before.is_file(), "{}: not a file", before.display());
    }
    let (cores, peers) = (Cores::choose()?, Peers::find(arguments.before.clone()));
    println!("{}\n", Machine::inspect(&peers, cores, descriptors));
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let folder_path = folder.path().to_owned();
    let mut backend = Child::start(&folder_path, "backends", Some(cores.load), ["backends"])?;
    let backends = Backends::parse(&backend.expect("ready", Duration::from_secs(5)).await?)?;
    let stage = Stage { folder: folder_path, cores, peers, backends };

    let is_wanted = |id| arguments.only.is_empty() || arguments.only.contains(&id);
    let mut all = Vec::new();
    for workload in workload::ALL.into_iter().filter(|workload| is_wanted(workload.id)) {
        let results = if workload.id == Id::W4 {
            measure_idle(&stage, workload, arguments, descriptors).await
        } else {
            measure(&stage, workload, arguments).await
        };
        let results = results.with_context(|| format!("{:?}", workload.id))?;
        println!("{}", results.table());
        all.push(results);
    }
    let mut shares = None;
    if is_wanted(Id::B) {
        let time = Duration::from_millis(if arguments.quick { 200 } else { 3000 });
        let balance = balance::measure(&stage, time, arguments.quick).await.context("B")?;
        println!("{balance}\n");
        shares = Some(balance);
    }
    if !arguments.quick {
        println!("{}", report::goals(&all, shares.as_ref()));
    }
    if let Some(path) = &arguments.output {
        report::write(path, &all).with_context(|| format!("cannot write {}", path.display()))?;
    }
    backend.end().await
}

/// Measures all subjects, which run at the same time and are measured one after the other.
async fn measure(stage: &Stage, workload: Workload, arguments: &Arguments) -> Result<Results> {
    let (rounds, time) = match arguments.quick {
        true => (1, Duration::from_millis(100)),
        false => (arguments.rounds.max(1), Duration::from_secs(1)),
    };
    let mut running = Vec::new();
    let mut columns = Vec::new();
    for &subject in participants(stage, &workload) {
        running.push(Running::start(stage, subject, workload.traffic).await?);
        columns.push((subject, Vec::new()));
    }
    for round in 0..rounds {
        for i in order(running.len(), round) {
            let subject = &running[i];
            let cell = workload::measure(stage, &workload, subject, time, arguments.quick).await;
            let name = subject.subject.name();
            columns[i].1.push(cell.with_context(|| name.to_owned())?);
        }
    }
    for subject in running {
        subject.end().await?;
    }
    Ok(Results { workload, columns })
}

/// Measures the memory of all subjects, which are started anew in each round.
async fn measure_idle(
    stage: &Stage,
    workload: Workload,
    arguments: &Arguments,
    descriptors: u64,
) -> Result<Results> {
    // Memory is less noisy than time.
    let rounds = if arguments.quick { 1 } else { arguments.rounds.clamp(1, 3) };
    let amount = idle::connections(descriptors, arguments.quick);
    let subjects = participants(stage, &workload);
    let mut columns: Vec<_> = subjects.map(|&subject| (subject, Vec::new())).collect();
    for round in 0..rounds {
        for i in order(columns.len(), round) {
            let (subject, cells) = &mut columns[i];
            let cell = idle::measure(stage, *subject, amount).await;
            cells.push(cell.with_context(|| subject.name())?);
        }
    }
    Ok(Results { workload, columns })
}

fn participants<'a>(
    stage: &'a Stage,
    workload: &Workload,
) -> impl Iterator<Item = &'static Subject> + use<'a> {
    let traffic = workload.traffic;
    workload.subjects.iter().filter(move |subject| {
        let is_available = subject.is_available(&stage.peers, traffic);
        if !is_available && **subject != Subject::LvsBefore {
            println!("{}: not installed, left out", subject.name());
        }
        is_available
    })
}

/// Returns the order of the subjects: reversed every other round.
fn order(subjects: usize, round: usize) -> Vec<usize> {
    let forwards = 0..subjects;
    if round.is_multiple_of(2) { forwards.collect() } else { forwards.rev().collect() }
}
