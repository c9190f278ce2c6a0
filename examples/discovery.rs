//! A TCP balancer whose members come from a file or from DNS.
//!
//! ```text
//! cargo run --release --example discovery -- file web.members
//! cargo run --release --example discovery -- dns web.example.com 8080
//! cargo run --release --example discovery -- srv _web._tcp.example.com
//! ```
//! Prints a line when the members change, and when the source fails.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lvs::discovery::{DnsSource, Feed, FeedHandle, FileSource, MemberSource};
use lvs::forward::Forwarder;
use lvs::{BackendSet, Balancer, scheduler};

/// Forwards TCP connections to discovered members.
#[derive(Parser)]
struct Arguments {
    /// The address at which clients connect.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The scheduler; the default uses tiers, which are the priorities of SRV records.
    #[arg(long, default_value = "priority(wlc)")]
    scheduler: String,
    #[command(subcommand)]
    source: SourceArguments,
}

#[derive(Subcommand)]
enum SourceArguments {
    /// The lines of a file, such as `10.0.0.1:80 weight=3`.
    File { path: PathBuf },
    /// The addresses of a host name.
    Dns { name: String, port: u16 },
    /// The targets of the SRV records of a service.
    Srv { name: String },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&*error),
    }
}

/// Prints an error with its causes.
fn report(error: &(dyn Error + 'static)) -> ExitCode {
    eprint!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { listen, scheduler, source } = arguments;
    let set = BackendSet::new();
    let feed = match source {
        SourceArguments::File { path } => start(&set, FileSource::new(path)),
        SourceArguments::Dns { name, port } => start(&set, DnsSource::addresses(name, port)?),
        SourceArguments::Srv { name } => start(&set, DnsSource::srv(name)?),
    };
    tokio::spawn(print_status(feed));
    let balancer = Balancer::new(&set, scheduler::parse(&scheduler)?)?;
    Forwarder::bind(listen, balancer)?.run().await?;
    Ok(())
}

fn start(
    set: &BackendSet<SocketAddr>,
    source: impl MemberSource<SocketAddr> + 'static,
) -> FeedHandle {
    let feed = Feed::new(set, source);
    let handle = feed.handle();
    tokio::spawn(feed.run());
    handle
}

async fn print_status(mut feed: FeedHandle) {
    let mut last_line = String::new();
    while let Some(status) = feed.changed().await {
        let error = status.last_error.filter(|_| status.failing_since.is_some());
        let error = error.map_or(String::new(), |error| format!(" ({error})"));
        let line = format!(
            "{}: {} members, {} draining{error}",
            status.state, status.members, status.draining
        );
        if line != last_line {
            println!("{line}");
            last_line = line;
        }
    }
}
