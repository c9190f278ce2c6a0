//! A director in a program of one's own. Without a configuration it starts three small web servers
//! behind one address, to try it.
//!
//! ```text
//! cargo run --release --example director
//! curl http://127.0.0.1:8080/
//! cargo run --release --example director -- --server 10.0.0.1:80 --server 10.0.0.2:80 --health /
//! cargo run --release --example director -- --config examples/director.toml --check
//! ```
//! Operators install the program `lvs`, which also reloads its configuration.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::{Router, http::header::CONNECTION};
use clap::Parser;
use lvs::director::{
    AdminConfig, CheckConfig, Director, DirectorConfig, EjectionConfig, RealServer, ServerStatus,
    ServiceConfig, ServiceStatus,
};
use tokio::net::TcpListener;

/// Balances connections over servers with health checks. Ctrl-C drains the connections and ends it.
#[derive(Debug, Parser)]
struct Args {
    /// A configuration, in TOML, instead of the options below.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Validates the configuration, prints the first error, and exits.
    #[arg(long, requires = "config")]
    check: bool,
    /// The address that clients connect to.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The scheduler: `wrr`, `wlc`, `bounded(maglev, factor=1.5)`, ...
    #[arg(long, value_name = "RULE", default_value = "wrr")]
    scheduler: String,
    /// A server; repeatable. By default, three small built-in web servers.
    #[arg(long, value_name = "ADDRESS")]
    server: Vec<SocketAddr>,
    /// The path of HTTP health checks. By default, servers must accept connections.
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    /// The interval and the timeout of health checks, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    interval: u64,
    /// The address of the status page.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    admin: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run(Args::parse()).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).with_target(false).init();
    let config = match &args.config {
        Some(path) => DirectorConfig::load(path)?,
        None => demonstration(&args).await?,
    };
    if args.check {
        println!("the configuration is valid");
        return Ok(());
    }
    let drain_timeout = config.drain_timeout();
    let director = Director::start(config).await?;
    for service in director.status().services {
        println!("{} listens on {}", service.name, service.listen.join(", "));
    }
    if let Some(admin) = director.admin_address() {
        println!("the status page is http://{admin}/");
    }
    let (mut events, mut shown) = (director.events(), String::new());
    let mut refresh = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            signal = tokio::signal::ctrl_c() => break signal?,
            Some(event) = events.next() => println!("{}", event?),
            _ = refresh.tick() => {
                let table: String = director.status().services.iter().map(table).collect();
                if table != shown {
                    println!("{table}");
                    shown = table;
                }
            }
        }
    }
    println!("draining for up to {drain_timeout:?}");
    let drained = director.stop(drain_timeout).await;
    println!("{} connections finished, {} cut", drained.finished, drained.cut);
    Ok(())
}

/// Returns a configuration with one service, as the options describe it.
async fn demonstration(args: &Args) -> Result<DirectorConfig, Box<dyn Error>> {
    let check = match &args.health {
        Some(path) => CheckConfig::http(path),
        None => CheckConfig::tcp(),
    };
    let service = ServiceConfig::tcp("web")
        .listen(args.listen)
        .scheduler(&*args.scheduler)
        .health(check.interval(Duration::from_millis(args.interval)))
        .ejection(EjectionConfig::builder());
    let mut service = args.server.iter().fold(service, |service, server| service.server(*server));
    if args.server.is_empty() {
        for (name, weight) in [("alpha", 3), ("beta", 2), ("gamma", 1)] {
            let address = start_web_server(name).await?;
            service = service.server(RealServer::builder(address).name(name).weight(weight));
        }
    }
    let admin = AdminConfig::builder(args.admin);
    Ok(DirectorConfig::builder().admin(admin).service(service).build()?)
}

/// Starts a server on a free loopback port; it answers with its name and a request count.
async fn start_web_server(name: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let requests = Arc::new(AtomicU64::new(0));
    let answer = async move || {
        let count = requests.fetch_add(1, Ordering::Relaxed) + 1;
        // The director balances connections: a browser that kept one open would see one server only.
        ([(CONNECTION, "close")], format!("Hello from {name}, request {count}.\n"))
    };
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    Ok(address)
}

/// Returns a line for each server: its state, and what it has done.
fn table(service: &ServiceStatus) -> String {
    let line = |server: &ServerStatus| {
        let ServerStatus { address, name, state, active, outcomes, .. } = server;
        let name = name.as_deref().unwrap_or(address);
        let (served, failed) = (outcomes.ok, outcomes.failures());
        format!("  {name:21} {state:10} {active:>6} active {served:>8} served {failed:>6} failed\n")
    };
    service.servers.iter().map(line).collect()
}
