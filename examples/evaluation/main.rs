//! The evaluation: a single server compared with a cluster, and the requests that a failure loses.
//!
//! ```text
//! cargo run --release --example evaluation
//! cargo run --release --example evaluation -- --quick --output DIR
//! ```
//! Real servers, clients and directors are processes of their own, in network namespaces. The performance
//! part has one server alone, and two to four servers behind a director, under a load that rises from well
//! below to well above the capacity of one server. In the redundancy part a real server fails, or the
//! active director, under a constant load and while long downloads are under way. The director runs with
//! the proxy engine and with the packet engine; HAProxy, with keepalived, runs the same where it is
//! installed. Network namespaces need root: without it the proxies run on loopback, and only real servers
//! fail.
//!
//! The program writes `report.html`, with all charts and tables, the numbers as CSV files, and some charts as
//! SVG files.

mod available;
mod balancer;
mod balancer_spec;
mod ceiling;
mod clock;
mod cluster;
mod downloads;
mod fault;
mod load;
mod measure;
#[path = "../../tests/common/namespaces.rs"]
mod namespaces;
mod network;
mod performance;
mod plan;
mod process;
mod redundancy;
mod report;
mod schedulers;
mod server;
mod testbed;
mod theory;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::available::Available;
use crate::plan::Plan;
use crate::process::{Error, INTERRUPTED};
use crate::report::Results;

/// Measures throughput, request loss, CPU utilization, response time and the downloads that survive a
/// failure.
#[derive(Debug, Parser)]
struct Args {
    /// Run for a minute only, with fewer and shorter steps.
    #[arg(long)]
    quick: bool,
    /// Directory of the report.
    #[arg(long, value_name = "DIR", default_value = "target/evaluation")]
    output: PathBuf,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The roles of child processes, which this program starts itself.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Server(server::ServerArgs),
    #[command(hide = true)]
    Load(load::LoadArgs),
    #[command(hide = true)]
    Downloads(downloads::DownloadArgs),
    #[command(hide = true)]
    PacketEngine {
        #[arg(long)]
        pin_folder: PathBuf,
    },
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
    if args.role.is_some() {
        process::init_child()?;
    }
    match args.role {
        Some(Role::Server(args)) => server::run(args),
        Some(Role::Load(args)) => load::run(args),
        Some(Role::Downloads(args)) => downloads::run(args),
        Some(Role::PacketEngine { pin_folder }) => available::run(&pin_folder),
        Some(Role::Director { config }) => balancer::run(&config),
        None => evaluate(if args.quick { Plan::quick() } else { Plan::full() }, args.output),
    }
}

fn evaluate(mut plan: Plan, output: PathBuf) -> Result<(), Error> {
    handle_interrupt()?;
    let started_at = clock::now();
    let scratch = output.join("scratch");
    std::fs::create_dir_all(&scratch)
        .map_err(|error| format!("cannot create {}: {error}", scratch.display()))?;
    let available = Available::find(&scratch);
    plan.keep(|product, is_pair| available.has(product, is_pair));
    plan.is_in_namespaces = available.in_namespaces;
    plan.left_out = available.left_out();
    let bar = ProgressBar::new(plan.steps());
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}")?);
    let results = Results {
        performance: performance::run(&plan, &scratch, &bar)?,
        schedulers: schedulers::run(&plan, &scratch, &bar)?,
        ceiling: ceiling::run(&plan, &scratch, &bar)?,
        redundancy: redundancy::run(&plan, &scratch, &bar)?,
        duration: clock::now() - started_at,
        plan,
    };
    bar.finish_and_clear();
    report::write(&results, &output)?;
    std::fs::remove_dir_all(scratch)?;
    print!("{}", report::summary(&results));
    println!("report: {}", output.join("report.html").display());
    Ok(())
}

/// Lets Ctrl-C end the run in order, so that namespaces and processes are removed.
fn handle_interrupt() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}
