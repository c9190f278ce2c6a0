//! A TCP balancer whose members come from a file or from DNS.
//!
//! ```text
//! cargo run --release --features discovery-dns --example discovery -- --file web.members
//! cargo run --release --features discovery-dns --example discovery -- --dns web.example.com:8080
//! cargo run --release --features discovery-dns --example discovery -- --srv _web._tcp.example.com
//! ```
//! Prints a line whenever the members change, or the source fails; Ctrl-C ends it.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use lvs::discovery::{DnsSource, Feed, FeedHandle, FileSource, Source};
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
    #[command(flatten)]
    from: From,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct From {
    /// A file with a member a line, such as `10.0.0.1:80 weight=3`.
    #[arg(long)]
    file: Option<PathBuf>,
    /// A name in DNS and a port.
    #[arg(long, value_name = "NAME:PORT")]
    dns: Option<String>,
    /// A service in DNS.
    #[arg(long, value_name = "NAME")]
    srv: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { listen, scheduler, from } = Arguments::parse();
    let set = BackendSet::new();
    let mut members = if let Some(path) = from.file {
        start(&set, FileSource::new(path))
    } else if let Some(name) = from.srv {
        start(&set, DnsSource::srv(name)?)
    } else {
        let target = from.dns.unwrap_or_default();
        let (name, port) = target.rsplit_once(':').ok_or("--dns takes NAME:PORT")?;
        start(&set, DnsSource::addresses(name, port.parse()?)?)
    };

    let balancer = Balancer::new(&set, scheduler::parse(&scheduler)?)?;
    let forwarder = Forwarder::bind(listen, balancer)?.name("discovery");
    let handle = forwarder.handle();
    tokio::spawn(async move {
        while let Some(now) = members.changed().await {
            print!("{}: {} members, {} draining", now.state, now.members, now.draining);
            let error = now.last_error.filter(|_| now.failing_since.is_some());
            println!("{}", error.map_or(String::new(), |error| format!(" ({error})")));
        }
    });
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        handle.shutdown(Duration::from_secs(5));
    });
    forwarder.run().await?;
    Ok(())
}

fn start(set: &BackendSet<SocketAddr>, source: impl Source<SocketAddr> + 'static) -> FeedHandle {
    let feed = Feed::new(set, source);
    let handle = feed.handle();
    tokio::spawn(feed.run());
    handle
}
