//! Clients: requests that come at random, whether or not those before were answered.
//!
//! What a request took is counted from when it was to be sent, so that a client that is late, or a
//! server that holds it up, makes no time look better than it was.

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
use crate::measure::{Asked, Fate};
use crate::process::Error;
use crate::server::{BODY, SERVER, exponential};

/// What is asked of whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// Requests in a second, in the mean.
    #[arg(long)]
    pub(crate) rate: f64,
    #[arg(long)]
    pub(crate) seconds: f64,
    /// How long a client waits, in milliseconds.
    #[arg(long)]
    pub(crate) patience_ms: u64,
    /// Each from a random address of 127.1.0.0/16, as if there were many clients.
    #[arg(long)]
    pub(crate) many: bool,
    #[arg(long)]
    pub(crate) output: PathBuf,
}

pub(crate) fn run(args: LoadArgs) -> Result<(), Error> {
    let (send, mut due) = mpsc::unbounded_channel();
    let (rate, seconds) = (args.rate, Duration::from_secs_f64(args.seconds));
    // By itself: a runtime's timers count in milliseconds.
    let clerk = thread::spawn(move || {
        // The same moments for whoever is asked as often.
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
    let asked = runtime.block_on(async {
        let mut clients = JoinSet::new();
        let (to, patience) = (args.to, Duration::from_millis(args.patience_ms));
        while let Some(at) = due.recv().await {
            clients.spawn(ask(to, at, patience, args.many));
        }
        clients.join_all().await
    });
    clerk.join().map_err(|_| "the clerk panicked")?;
    let mut output = csv::Writer::from_path(&args.output)?;
    for asked in asked {
        output.serialize(asked)?;
    }
    Ok(output.flush()?)
}

async fn ask(to: SocketAddr, at: Duration, patience: Duration, many: bool) -> Asked {
    let late = clock::now().saturating_sub(at);
    let (fate, server) = match timeout(patience.saturating_sub(late), get(to, many)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => (fate_of(&*error), None),
        Err(_) => (Fate::TimedOut, None),
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let took = clock::now().saturating_sub(at);
    Asked { at_us: micros(at), late_us: micros(late), took_us: micros(took), fate, server }
}

fn fate_of(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Fate {
    use std::io::ErrorKind as Kind;
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(Kind::ConnectionRefused | Kind::HostUnreachable | Kind::NetworkUnreachable) => {
            Fate::Refused
        }
        Some(Kind::TimedOut) => Fate::TimedOut,
        _ => Fate::Reset,
    }
}

async fn get(
    to: SocketAddr,
    many: bool,
) -> Result<(Fate, Option<u8>), Box<dyn std::error::Error + Send + Sync>> {
    let stream = connect(to, many).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/").header(HOST, "evaluation").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, hyper::Error>((head, body.len()))
    };
    // In one task: the connection is there for the one exchange.
    let (head, length) = tokio::select! {
        biased;
        exchanged = exchange => exchanged?,
        Err(error) = connection => return Err(error.into()),
    };
    if head.status != StatusCode::OK || length != BODY {
        return Ok((Fate::Wrong, None));
    }
    let server = head.headers.get(SERVER).and_then(|name| name.to_str().ok());
    Ok((Fate::Answered, server.and_then(|name| name.parse().ok())))
}

async fn connect(to: SocketAddr, many: bool) -> std::io::Result<TcpStream> {
    if !many {
        return TcpStream::connect(to).await;
    }
    let source = Ipv4Addr::new(127, 1, fastrand::u8(..), fastrand::u8(1..255));
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(source), 0).into())?;
    socket.connect(to).await
}
