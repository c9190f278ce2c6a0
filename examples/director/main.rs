//! A balancer to try: three small web servers behind one address.
//!
//! ```text
//! cargo run --release --example director
//! curl http://127.0.0.1:8080/
//! ```

mod display;
mod server;
mod signals;

use std::error::Error;
use std::net::SocketAddr;
use std::process::{ExitCode, exit};
use std::time::Duration;

use clap::Parser;
use lvs::forward::Forwarder;
use lvs::health::{Checks, Ejection, Monitor, Plan, TcpCheck};
use lvs::scheduler::Registry;
use lvs::{BackendSet, Balancer, Spec};

use crate::display::Display;
use crate::signals::StopSignals;

/// Balances TCP connections over three small built-in web servers.
#[derive(Debug, Parser)]
struct Args {
    /// The address that clients connect to.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The scheduling rule: `wrr`, `wlc`, `bounded(maglev, factor=1.5)`, ...
    #[arg(long, value_name = "RULE", default_value = "wrr")]
    scheduler: String,
}

/// How long running connections may take to end by themselves.
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let mut stop = StopSignals::new()?;

    // Who can serve. The set lists its newest member first, as the kernel does: alpha comes last.
    let set = BackendSet::new();
    for (name, weight) in [("gamma", 1), ("beta", 2), ("alpha", 3)] {
        set.insert(Spec::new(name, server::start(name).await?).weight(weight))?;
    }
    // Whom to choose.
    let balancer = Balancer::new(&set, Registry::default().parse(&args.scheduler)?)?;
    // Who looks after the servers.
    let monitor = Monitor::new();
    let check = Checks::new(TcpCheck::new()).interval(Duration::from_secs(1));
    monitor.watch(&set, Plan::new("web").check(check).eject(Ejection::new()))?;
    let mut events = monitor.events();
    tokio::spawn(monitor.run());
    // Where clients come in.
    let forwarder = Forwarder::bind(args.listen, balancer.clone())?;

    let handle = forwarder.handle();
    let mut running = tokio::spawn(forwarder.run());
    let mut display = Display::start(balancer, handle.clone())?;
    let mut refresh = tokio::time::interval(display.period());
    let mut stopping = false;
    let drained = loop {
        tokio::select! {
            _ = refresh.tick() => display.update()?,
            Some(event) = events.next() => display.say(&event?.to_string())?,
            drained = &mut running => break drained??,
            () = stop.next() => {
                if stopping {
                    exit(130);
                }
                stopping = true;
                handle.shutdown(DRAIN);
                display.say(&format!("draining for up to {DRAIN:?}; Ctrl-C again ends at once"))?;
            }
        }
    };
    display.say(&format!("drained: {} finished, {} cut", drained.finished, drained.cut))?;
    Ok(())
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
