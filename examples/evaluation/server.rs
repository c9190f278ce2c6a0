//! A real server: a process with so many workers, a line for so many more, and a service time.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::clock;
use crate::process::Error;

/// Says which server answers.
pub(crate) const SERVER: HeaderName = HeaderName::from_static("x-server");
/// What an answer weighs, in bytes.
pub(crate) const BODY: usize = 4096;

/// What a server is like.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// What it calls itself.
    #[arg(long)]
    pub(crate) number: u8,
    /// How many requests it works on at a time; 0 answers at once.
    #[arg(long)]
    pub(crate) workers: usize,
    /// How many more may wait.
    #[arg(long)]
    pub(crate) line: usize,
    /// What a request takes, in the mean and in microseconds; it is exponential.
    #[arg(long)]
    pub(crate) service_us: u64,
    /// How much of that is work for the processor.
    #[arg(long)]
    pub(crate) cpu_us: u64,
}

struct Server {
    args: ServerArgs,
    /// Requests that are worked on or wait.
    inside: AtomicUsize,
}

pub(crate) fn run(args: ServerArgs) -> Result<(), Error> {
    let listen = args.listen;
    // Its blocking threads are the workers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(args.workers.max(1))
        .thread_keep_alive(Duration::from_secs(3600))
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        let server = Arc::new(Server { args, inside: AtomicUsize::new(0) });
        let app = Router::new().route("/health", get(async || "well\n")).fallback(answer);
        Ok(axum::serve(listener, app.with_state(server)).await?)
    })
}

async fn answer(State(server): State<Arc<Server>>) -> Response {
    let ServerArgs { workers, line, service_us, cpu_us, number, .. } = server.args;
    if workers > 0 {
        let Some(_place) = Place::take(Arc::clone(&server), workers + line) else {
            return (StatusCode::SERVICE_UNAVAILABLE, [(CONNECTION, "close")]).into_response();
        };
        let took = exponential(service_us as f64 / 1e6);
        let work = tokio::task::spawn_blocking(move || work(took, Duration::from_micros(cpu_us)));
        if work.await.is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    }
    let head = [(CONNECTION, "close".to_owned()), (SERVER, number.to_string())];
    (head, vec![b'x'; BODY]).into_response()
}

/// A worker works, and waits for what else a request needs: a disk, another service.
fn work(service: Duration, cpu: Duration) {
    thread_local! {
        /// What the last ones took too long, for the system wakes late: the mean is to be exact.
        static OWED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }
    let until = clock::now() + service;
    let worked = clock::of_this_thread() + cpu.min(service);
    while clock::of_this_thread() < worked {
        std::hint::spin_loop();
    }
    OWED.with(|owed| {
        clock::sleep_until(until.saturating_sub(owed.get()));
        let ended = clock::now() + owed.get();
        owed.set(ended.saturating_sub(until));
    });
}

/// A random time with this mean, in seconds.
pub(crate) fn exponential(mean: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() * mean)
}

/// A place among those who are inside, given back at the end.
struct Place(Arc<Server>);

impl Place {
    fn take(server: Arc<Server>, most: usize) -> Option<Self> {
        let inside = server.inside.fetch_add(1, Ordering::Relaxed);
        let place = Self(server);
        (inside < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}
