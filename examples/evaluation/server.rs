//! A real server: a process with workers, a backlog, and a random service time.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_core::Stream;
use hyper::body::Bytes;
use tokio::net::TcpListener;
use tokio::time::{Interval, interval};

use crate::clock;
use crate::process::Error;

/// The header with the number of the server that answers.
pub(crate) const SERVER: HeaderName = HeaderName::from_static("x-server");
/// The size of an answer's body, in bytes.
pub(crate) const BODY: usize = 4096;
/// The path of an answer without an end.
pub(crate) const DOWNLOAD: &str = "/download";
/// The octets of a part of such an answer, and the time from one part to the next.
const PART: u64 = 4096;
const PART_INTERVAL: Duration = Duration::from_millis(20);

/// The options of a server process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Number of the server.
    #[arg(long)]
    pub(crate) number: u8,
    /// Number of requests served at a time; with 0 the server answers at once.
    #[arg(long)]
    pub(crate) workers: usize,
    /// Number of further requests that may wait.
    #[arg(long)]
    pub(crate) backlog: usize,
    /// Mean of the exponential service time, in microseconds.
    #[arg(long)]
    pub(crate) service_us: u64,
    /// Processor time in the service time, in microseconds.
    #[arg(long)]
    pub(crate) cpu_us: u64,
}

struct Server {
    args: ServerArgs,
    /// Requests that are served or wait.
    inside: AtomicUsize,
}

pub(crate) fn run(args: ServerArgs) -> Result<(), Error> {
    let listen = args.listen;
    // The blocking threads of the runtime are the workers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(args.workers.max(1))
        .thread_keep_alive(Duration::from_secs(3600))
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        let server = Arc::new(Server { args, inside: AtomicUsize::new(0) });
        let app = Router::new()
            .route("/health", get(async || "ok\n"))
            .route(DOWNLOAD, get(download))
            .fallback(answer);
        Ok(axum::serve(listener, app.with_state(server)).await?)
    })
}

async fn answer(State(server): State<Arc<Server>>) -> Response {
    let ServerArgs { workers, backlog, service_us, cpu_us, number, .. } = server.args;
    if workers > 0 {
        let Some(_slot) = Slot::acquire(Arc::clone(&server), workers + backlog) else {
            return (StatusCode::SERVICE_UNAVAILABLE, [(CONNECTION, "close")]).into_response();
        };
        let service = exponential(service_us as f64 / 1e6);
        let work =
            tokio::task::spawn_blocking(move || work(service, Duration::from_micros(cpu_us)));
        if work.await.is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    }
    let head = [(CONNECTION, "close".to_owned()), (SERVER, number.to_string())];
    (head, vec![b'x'; BODY]).into_response()
}

/// Answers slowly and without an end, beside the queue.
async fn download(State(server): State<Arc<Server>>) -> Response {
    let body = Body::from_stream(SlowBody { parts: interval(PART_INTERVAL), sent: 0 });
    ([(SERVER, server.args.number.to_string())], body).into_response()
}

/// Returns the octet at a place of a download. The period is no divisor of any size of a buffer.
pub(crate) fn octet(place: u64) -> u8 {
    (place % 251) as u8
}

struct SlowBody {
    parts: Interval,
    sent: u64,
}

impl Stream for SlowBody {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.parts.poll_tick(context));
        let from = self.sent;
        self.sent += PART;
        Poll::Ready(Some(Ok((from..self.sent).map(octet).collect())))
    }
}

/// Serves a request: uses the processor for a part of the service time and sleeps for the rest.
fn work(service: Duration, cpu: Duration) {
    thread_local! {
        /// How much longer than drawn the previous requests took, since sleeps end late. It is
        /// subtracted from the next sleep, so that the mean is exact.
        static EXCESS: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }
    let until = clock::now() + service;
    let cpu_until = clock::thread_cpu_time() + cpu.min(service);
    while clock::thread_cpu_time() < cpu_until {
        std::hint::spin_loop();
    }
    EXCESS.with(|excess| {
        clock::sleep_until(until.saturating_sub(excess.get()));
        let ended = clock::now() + excess.get();
        excess.set(ended.saturating_sub(until));
    });
}

/// Returns a random time with this mean, which is in seconds.
pub(crate) fn exponential(mean: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() * mean)
}

/// A slot for a request that is served or waits, released on drop.
struct Slot(Arc<Server>);

impl Slot {
    fn acquire(server: Arc<Server>, max: usize) -> Option<Self> {
        let inside = server.inside.fetch_add(1, Ordering::Relaxed);
        let slot = Self(server);
        (inside < max).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}
