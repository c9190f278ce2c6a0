//! A pool of Redis connections, balanced by `p2c`: two connections to each of three servers, one of
//! which is killed and restarted.
//!
//! ```text
//! apt install redis-server
//! cargo run --release --example tower_database
//! ```
//! The example starts the servers itself. With servers of your own, which it does not stop:
//!
//! ```text
//! redis-server --port 7001 --save '' & redis-server --port 7002 --save '' &
//! cargo run --release --example tower_database -- \
//!     --server 127.0.0.1:7001 --server 127.0.0.1:7002
//! ```

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::process::ExitCode;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use clap::Parser;
use lvs::Spec;
use lvs::discovery::StaticList;
use lvs::scheduler::PowerOfTwoChoices;
use lvs::tower::{BalanceLayer, ReconnectConfig, Retry};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, RedisError, Value};
use tokio::task::JoinSet;
use tokio::time::interval;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

/// Sends commands through a pool of connections and prints how many each connection got.
#[derive(Debug, Parser)]
struct Args {
    /// Address of a server; without any, three servers are started.
    #[arg(long = "server", value_name = "ADDRESS")]
    servers: Vec<SocketAddr>,
    /// Number of commands, one each millisecond.
    #[arg(long, default_value_t = 3000)]
    requests: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
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

async fn run() -> Result<(), BoxError> {
    let args = Args::parse();
    let mut own_servers = Vec::new();
    if args.servers.is_empty() {
        own_servers = (0..3).map(|_| Server::start()).collect::<io::Result<_>>()?;
    }
    let addresses =
        args.servers.iter().copied().chain(own_servers.iter().map(|server| server.address));
    let members = addresses.flat_map(|address| {
        (1..=2).map(move |n| Spec::new(format!("{address}/{n}").as_str(), address))
    });
    // Makes the connections, at once and again after they break.
    let connect = service_fn(Connection::make);
    let pool = BalanceLayer::new(PowerOfTwoChoices::new())
        .reconnect(
            ReconnectConfig::new()
                .backoff(Duration::from_millis(50), Duration::from_millis(500))?,
        )
        .layer(connect)
        .balance(StaticList::new(members))?
        .retry(Retry::new(|command: &Cmd| Some(command.clone())));

    let (mut requests, mut failed) = (JoinSet::new(), 0);
    let mut ticks = interval(Duration::from_millis(1));
    for request in 0..args.requests {
        if let Some(server) = own_servers.first_mut() {
            match request {
                number if number == args.requests / 3 => server.stop()?,
                number if number == args.requests * 2 / 3 => server.restart()?,
                _ => {}
            }
        }
        ticks.tick().await;
        let mut command = redis::cmd("ECHO");
        command.arg(request);
        requests.spawn(pool.clone().oneshot(command));
    }
    while let Some(answer) = requests.join_next().await {
        if let Err(error) = answer? {
            failed += 1;
            eprintln!("command failed: {error}");
        }
    }

    println!("{} commands, {failed} failed", args.requests);
    println!("connection              ok  failed");
    for backend in pool.balancer().backend_set().snapshot().backends() {
        let outcomes = backend.outcomes();
        println!("{:20} {:5} {:7}", backend.id().as_str(), outcomes.ok, outcomes.failures());
    }
    Ok(())
}

/// A connection as a service; after it has lost its server, `poll_ready` fails.
#[derive(Clone)]
struct Connection {
    redis: MultiplexedConnection,
    lost: Arc<AtomicBool>,
}

impl Connection {
    async fn make(address: SocketAddr) -> Result<Self, RedisError> {
        let client = Client::open(format!("redis://{address}"))?;
        let redis = client.get_multiplexed_async_connection().await?;
        Ok(Self { redis, lost: Arc::default() })
    }
}

impl Service<Cmd> for Connection {
    type Response = Value;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Value, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let lost = self.lost.load(Ordering::Relaxed);
        Poll::Ready(if lost { Err("connection lost".into()) } else { Ok(()) })
    }

    fn call(&mut self, command: Cmd) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let answer = command.query_async(&mut this.redis).await;
            let lost = matches!(&answer, Err(error) if error.is_unrecoverable_error());
            this.lost.fetch_or(lost, Ordering::Relaxed);
            Ok(answer?)
        })
    }
}

/// A server that the example started; killed on drop.
struct Server {
    address: SocketAddr,
    process: Child,
}

impl Server {
    fn start() -> io::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let server = Self { address, process: Self::spawn(address)? };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("redis-server does not listen on {address}")))
    }

    fn spawn(address: SocketAddr) -> io::Result<Child> {
        let port = address.port().to_string();
        Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &*port, "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::other(format!(
                    "cannot start redis-server (Debian package redis-server): {error}"
                ))
            })
    }

    fn stop(&mut self) -> io::Result<()> {
        println!("server {} is killed", self.address);
        self.process.kill()?;
        self.process.wait().map(drop)
    }

    fn restart(&mut self) -> io::Result<()> {
        println!("server {} is restarted", self.address);
        self.process = Self::spawn(self.address)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
