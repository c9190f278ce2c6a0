//! The evaluation: a single server against the cluster, and what a failure costs.
//!
//! ```text
//! cargo run --release --example evaluation
//! cargo run --release --example evaluation -- --quick --output DIR
//! ```
//! Real servers, clients and directors are processes of their own. The performance part runs on
//! loopback: one server alone, and two to four behind a director, under a load that rises from well
//! below to well above what one server can do. The redundancy part runs in network namespaces, which
//! need root: a server dies, the active director dies, under a steady load. HAProxy, with keepalived,
//! goes through the same where it is installed.
//!
//! It writes `report.html`, whose charts and tables are all there is to see, and the same as CSV.

mod balancer;
mod ceiling;
mod clock;
mod cluster;
mod load;
mod measure;
mod performance;
mod plan;
mod process;
mod redundancy;
mod report;
mod schedulers;
mod server;
mod theory;
#[path = "../../tests/standby/world.rs"]
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::plan::Plan;
use crate::process::{ENDS, Error};
use crate::report::Results;

/// Evaluates a cluster by throughput, request loss, CPU utilization and response time.
#[derive(Debug, Parser)]
struct Args {
    /// In a minute: fewer and shorter steps.
    #[arg(long)]
    quick: bool,
    /// Where the report goes.
    #[arg(long, value_name = "DIR", default_value = "target/evaluation")]
    output: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program starts for itself.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Server(server::ServerArgs),
    #[command(hide = true)]
    Load(load::LoadArgs),
    #[command(hide = true)]
    Director {
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Error> {
    if args.part.is_some() {
        process::be_a_part()?;
    }
    match args.part {
        Some(Part::Server(args)) => server::run(args),
        Some(Part::Load(args)) => load::run(args),
        Some(Part::Director { config }) => balancer::run(&config),
        None => evaluate(if args.quick { Plan::quick() } else { Plan::full() }, args.output),
    }
}

fn evaluate(plan: Plan, output: PathBuf) -> Result<(), Error> {
    end_when_asked()?;
    let begun = clock::now();
    let scratch = output.join("scratch");
    std::fs::create_dir_all(&scratch)
        .map_err(|error| format!("cannot make {}: {error}", scratch.display()))?;
    let bar = ProgressBar::new(plan.steps());
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}")?);
    let results = Results {
        performance: performance::run(&plan, &scratch, &bar)?,
        schedulers: schedulers::run(&plan, &scratch, &bar)?,
        ceiling: ceiling::run(&plan, &scratch, &bar)?,
        redundancy: redundancy::run(&plan, &scratch, &bar)?,
        took: clock::now() - begun,
        plan,
    };
    bar.finish_and_clear();
    report::write(&results, &output)?;
    std::fs::remove_dir_all(scratch)?;
    print!("{}", report::summary(&results));
    println!("The report: {}", output.join("report.html").display());
    Ok(())
}

/// Ctrl-C ends it in order: what it has made is taken away.
fn end_when_asked() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                ENDS.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}
