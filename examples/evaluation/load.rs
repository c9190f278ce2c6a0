//! Clients: requests at random moments, whether or not earlier requests were answered (an open
//! workload).
//!
//! Response times count from the moment at which a request was due, so that a late client or a server
//! that delays it hides no waiting time (no coordinated omission).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock;
use crate::measure::{RequestRecord, RequestResult};
use crate::process::Error;
use crate::server::{BODY, SERVER, exponential};

/// The options of the client process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// Mean number of requests a second.
    #[arg(long)]
    pub(crate) rate: f64,
    #[arg(long)]
    pub(crate) seconds: f64,
    /// How long a client waits for an answer, in milliseconds.
    #[arg(long)]
    pub(crate) client_timeout_ms: u64,
    /// The network of 65 536 addresses of this machine of which each request has a random one.
    #[arg(long)]
    pub(crate) many_clients: Option<Ipv4Addr>,
    #[arg(long)]
    pub(crate) output: PathBuf,
}

pub(crate) fn run(args: LoadArgs) -> Result<(), Error> {
    let (send, mut due) = mpsc::unbounded_channel();
    let (rate, seconds) = (args.rate, Duration::from_secs_f64(args.seconds));
    // In a thread of its own: a runtime's timers have a resolution of a millisecond.
    let timer = thread::spawn(move || {
        // The same moments in each run with this rate.
        fastrand::seed(rate.to_bits());
        let (mut at, end) = (clock::now(), clock::now() + seconds);
        loop {
            at += exponential(1.0 / rate);
            if at > end {
                return;
            }
            clock::sleep_until(at);
            if send.send(at).is_err() {
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let requests = runtime.block_on(async {
        let mut clients = JoinSet::new();
        let (to, client_timeout) = (args.to, Duration::from_millis(args.client_timeout_ms));
        while let Some(at) = due.recv().await {
            clients.spawn(ask(to, at, client_timeout, args.many_clients));
        }
        clients.join_all().await
    });
    timer.join().map_err(|_| "the thread that times the requests panicked")?;
    let mut output = csv::Writer::from_path(&args.output)?;
    for request in requests {
        output.serialize(request)?;
    }
    Ok(output.flush()?)
}

async fn ask(
    to: SocketAddr,
    at: Duration,
    client_timeout: Duration,
    many_clients: Option<Ipv4Addr>,
) -> RequestRecord {
    let late = clock::now().saturating_sub(at);
    let (fate, server) =
        match timeout(client_timeout.saturating_sub(late), get(to, many_clients)).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => (result_of(&*error), None),
            Err(_) => (RequestResult::TimedOut, None),
        };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let took = clock::now().saturating_sub(at);
    RequestRecord { at_us: micros(at), late_us: micros(late), took_us: micros(took), fate, server }
}

fn result_of(error: &(dyn std::error::Error + Send + Sync + 'static)) -> RequestResult {
    use std::io::ErrorKind as Kind;
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(Kind::ConnectionRefused | Kind::HostUnreachable | Kind::NetworkUnreachable) => {
            RequestResult::Refused
        }
        Some(Kind::TimedOut) => RequestResult::TimedOut,
        _ => RequestResult::Reset,
    }
}

async fn get(
    to: SocketAddr,
    many_clients: Option<Ipv4Addr>,
) -> Result<(RequestResult, Option<u8>), Box<dyn std::error::Error + Send + Sync>> {
    let stream = connect(to, many_clients).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/").header(HOST, "evaluation").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, hyper::Error>((head, body.len()))
    };
    // Both in one task: the connection serves this exchange only.
    let (head, length) = tokio::select! {
        biased;
        exchanged = exchange => exchanged?,
        Err(error) = connection => return Err(error.into()),
    };
    if head.status != StatusCode::OK || length != BODY {
        return Ok((RequestResult::Wrong, None));
    }
    let server = head.headers.get(SERVER).and_then(|name| name.to_str().ok());
    Ok((RequestResult::Answered, server.and_then(|name| name.parse().ok())))
}

async fn connect(to: SocketAddr, many_clients: Option<Ipv4Addr>) -> std::io::Result<TcpStream> {
    let Some(network) = many_clients else { return TcpStream::connect(to).await };
    let [a, b, ..] = network.octets();
    let source = Ipv4Addr::new(a, b, fastrand::u8(..), fastrand::u8(1..255));
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(source), 0).into())?;
    socket.connect(to).await
}
