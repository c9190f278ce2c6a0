//! A pool of Redis connections by `p2c`, two to each of three servers, of which one dies and comes
//! back.
//!
//! ```text
//! apt install redis-server
//! cargo run --release --example tower_database
//! ```
//! It starts the servers itself. On servers of your own, which it does not end:
//!
//! ```text
//! redis-server --port 7001 --save '' & redis-server --port 7002 --save '' &
//! cargo run --release --example tower_database -- \
//!     --server 127.0.0.1:7001 --server 127.0.0.1:7002
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
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
use lvs::tower::{BalanceLayer, Retry};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, RedisError, Value};
use tokio::task::JoinSet;
use tokio::time::interval;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

/// Asks through a pool of connections and shows where the questions went.
#[derive(Debug, Parser)]
struct Args {
    /// A server; without, three are started.
    #[arg(long = "server", value_name = "ADDRESS")]
    servers: Vec<SocketAddr>,
    /// How many questions, one each millisecond.
    #[arg(long, default_value_t = 3000)]
    requests: u32,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let mut own = Vec::new();
    if args.servers.is_empty() {
        own = (0..3).map(|_| Server::start()).collect::<io::Result<_>>()?;
    }
    let addresses = args.servers.iter().copied().chain(own.iter().map(|it| it.address));
    let members = addresses.flat_map(|address| {
        (1..=2).map(move |n| Spec::new(format!("{address}/{n}").as_str(), address))
    });
    // From addresses to connections, which are made at once, and again when they break.
    let connect = service_fn(Connection::make);
    let pool = BalanceLayer::new(PowerOfTwoChoices::new())
        .backoff(Duration::from_millis(50), Duration::from_millis(500))
        .layer(connect)
        .balance(StaticList::new(members))?
        .retry(Retry::new(|question: &Cmd| Some(question.clone())));

    let (mut asking, mut failed) = (JoinSet::new(), 0);
    let mut beat = interval(Duration::from_millis(1));
    for request in 0..args.requests {
        if let Some(server) = own.first_mut() {
            match request {
                it if it == args.requests / 3 => server.stop()?,
                it if it == args.requests * 2 / 3 => server.start_again()?,
                _ => {}
            }
        }
        beat.tick().await;
        let mut question = redis::cmd("ECHO");
        question.arg(request);
        asking.spawn(pool.clone().oneshot(question));
    }
    while let Some(answer) = asking.join_next().await {
        if let Err(error) = answer? {
            failed += 1;
            eprintln!("failed: {error}");
        }
    }

    println!("{} questions, {failed} failed", args.requests);
    println!("connection              ok  failed");
    for backend in pool.balancer().backend_set().snapshot().backends() {
        let outcomes = backend.outcomes();
        println!("{:20} {:5} {:7}", backend.id().as_str(), outcomes.ok, outcomes.failures());
    }
    Ok(())
}

/// A connection as a service: one that has lost its server says so when it is asked next.
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

    fn call(&mut self, question: Cmd) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let answer = question.query_async(&mut this.redis).await;
            let lost = matches!(&answer, Err(error) if error.is_unrecoverable_error());
            this.lost.fetch_or(lost, Ordering::Relaxed);
            Ok(answer?)
        })
    }
}

/// A server of this example's own, ended with it.
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
            .map_err(|error| io::Error::other(format!("redis-server: {error} (a Debian package)")))
    }

    fn stop(&mut self) -> io::Result<()> {
        println!("{} dies", self.address);
        self.process.kill()?;
        self.process.wait().map(drop)
    }

    fn start_again(&mut self) -> io::Result<()> {
        println!("{} is back", self.address);
        self.process = Self::spawn(self.address)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have died already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
