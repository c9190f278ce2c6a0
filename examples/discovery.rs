//! A TCP balancer whose members come from a file or from DNS.
//!
//! ```text
//! cargo run --release --example discovery -- file web.members
//! cargo run --release --example discovery -- dns web.example.com 8080
//! cargo run --release --example discovery -- srv _web._tcp.example.com
//! ```
//! Prints a line whenever the members change, or the source fails.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use lvs::discovery::{DnsSource, Feed, FeedHandle, FileSource, MemberSource};
use lvs::forward::Forwarder;
use lvs::{BackendSet, Balancer, scheduler};

/// Carries TCP connections to members that come and go.
#[derive(Parser)]
struct Arguments {
    /// Where clients connect to.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The rule that chooses; this one obeys tiers, which SRV priorities become.
    #[arg(long, default_value = "priority(wlc)")]
    scheduler: String,
    #[command(subcommand)]
    from: From,
}

#[derive(Subcommand)]
enum From {
    /// A file with a member a line, such as `10.0.0.1:80 weight=3`.
    File { path: PathBuf },
    /// The addresses of a name.
    Dns { name: String, port: u16 },
    /// The targets of a service.
    Srv { name: String },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { listen, scheduler, from } = Arguments::parse();
    let set = BackendSet::new();
    let members = match from {
        From::File { path } => start(&set, FileSource::new(path)),
        From::Dns { name, port } => start(&set, DnsSource::addresses(name, port)?),
        From::Srv { name } => start(&set, DnsSource::srv(name)?),
    };
    tokio::spawn(tell(members));
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

async fn tell(mut members: FeedHandle) {
    let mut last = String::new();
    while let Some(now) = members.changed().await {
        let error = now.last_error.filter(|_| now.failing_since.is_some());
        let error = error.map_or(String::new(), |error| format!(" ({error})"));
        let line =
            format!("{}: {} members, {} draining{error}", now.state, now.members, now.draining);
        if line != last {
            println!("{line}");
            last = line;
        }
    }
}
