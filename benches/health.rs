//! The cost of checking ten thousand servers once a second, and the punctuality of the checks.
//!
//! ```text
//! cargo bench --bench health
//! cargo bench --bench health -- --backends 1000 --seconds 5
//! ```
//! The servers are one process that listens on every loopback address: each backend has its own
//! address. The processor time is that of this process, which on loopback includes the kernel's work
//! for the server's half of each handshake.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use lvs::health::{HealthPlan, Monitor, TcpCheck, TimedCheck};
use lvs::{BackendSet, Spec};

/// Checks many backends by TCP and prints the cost.
#[derive(Debug, Parser)]
struct Args {
    /// Number of backends.
    #[arg(long, default_value_t = 10_000)]
    backends: u32,
    /// Length of the measurement in seconds, after the first round of checks.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Accepts connections until the standard input ends. The benchmark starts itself with this option.
    #[arg(long, hide = true)]
    server: bool,
    /// Set by `cargo bench`. Without it, as in `cargo test`, a short run of one second is made.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = Args::parse();
    if !args.bench {
        (args.backends, args.seconds) = (200, 1);
    }
    let done = if args.server { serve().await } else { measure(&args).await };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args) -> Result<(), Box<dyn Error>> {
    let (_server, port) = Server::start()?;
    let set = BackendSet::new();
    set.edit(|edit| (0..args.backends).try_for_each(|n| edit.insert(backend(n, port)).map(drop)))?;
    let monitor = Monitor::new();
    let interval = Duration::from_secs(1);
    let checks = TimedCheck::new(TcpCheck::new()).interval(interval).timeout(interval / 2);
    monitor.watch(&set, HealthPlan::new("bench").check(checks))?;
    tokio::spawn(monitor.run());
    tokio::time::sleep(interval * 2).await;

    let (cpu, before) = (cpu_time()?, monitor.counters());
    let begun = tokio::time::Instant::now();
    tokio::time::sleep(interval * args.seconds).await;
    let took = begun.elapsed();
    let (cpu, after) = (cpu_time()?.saturating_sub(cpu), monitor.counters());

    let checks = after.checks_started - before.checks_started;
    let up = set.snapshot().health_counts().0;
    println!("{checks} checks of {} backends in {:.2} s", args.backends, took.as_secs_f64());
    println!("  up          {up} of {}", args.backends);
    println!("  failed      {} ({} by this machine)", after.backend_failures, after.local_failures);
    println!("  processor   {:.3} of a core", cpu.as_secs_f64() / took.as_secs_f64());
    println!("  a check     {:.1} us", cpu.as_secs_f64() * 1e6 / checks as f64);
    println!(
        "  late        {} by more than a tenth of the interval",
        after.late_checks - before.late_checks
    );
    println!(
        "  latest      {:.1} ms after its time, start included",
        after.max_lateness.as_secs_f64() * 1e3
    );
    if up != args.backends as usize {
        return Err("some backends are not up".into());
    }
    Ok(())
}

fn backend(n: u32, port: u16) -> Spec<SocketAddr> {
    // Addresses from 127.1.0.0 on.
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + n);
    Spec::from(SocketAddr::from((ip, port)))
}

/// Returns the processor time of this process, user and kernel time together.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The fields after the name, which may contain spaces: utime and stime are fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The process of the servers, killed on drop.
struct Server(Child);

impl Server {
    fn start() -> Result<(Self, u16), Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let server = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok((server, line.trim().parse()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    println!("{}", listener.local_addr()?.port());
    // Exits if the parent process is killed.
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    tokio::select! {
        _ = parent => Ok(()),
        () = async {
            loop {
                let _ = listener.accept().await;
            }
        } => Ok(()),
    }
}
