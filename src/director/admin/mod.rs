//! The admin pages: how the director stands, and changes by hand.
//!
//! Whoever is there is bounded: so many connections, so long for a request, so many bytes in it. All
//! of it is done by one thread, which goes behind all others: what is slow or many here waits for
//! others of its kind, and takes no time from those that carry traffic.

mod access;
mod api;
mod page;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::setpriority_process;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::access::Access;
use super::Director;
use super::config::{AdminConfig, Time};

/// Connections at a time, unless that is said.
const CONNECTIONS: usize = 64;
/// How long a request may take, unless that is said.
const REQUEST: Duration = Duration::from_secs(10);
/// The longest body: a service's servers, all changed at once.
const BODY: usize = 1 << 20;
/// The longest head of a request.
const HEAD: usize = 16 << 10;
/// The priority of the thread: the last of all (`nice(2)`).
const LAST: i32 = 19;
/// When accepting fails, which is for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The admin pages.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    access: Access,
    connections: usize,
    request: Duration,
}

/// Admin pages that are served.
#[derive(Debug)]
pub(super) struct Serving {
    _thread: oneshot::Sender<()>,
}

impl Admin {
    pub(super) fn new(asked: &AdminConfig, listener: Arc<TcpListener>) -> Self {
        let address = listener.local_addr().unwrap_or(asked.listen);
        Self {
            listener,
            address,
            access: Access::new(asked),
            connections: asked.max_connections.unwrap_or(CONNECTIONS).max(1),
            request: asked.request_timeout.map_or(REQUEST, |Time(time)| time),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn listener(&self) -> Arc<TcpListener> {
        Arc::clone(&self.listener)
    }

    /// Serves them until what is returned is dropped.
    pub(super) fn start(self, director: Director) -> io::Result<Serving> {
        let (serving, ended) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("lvs-admin".to_owned()).spawn(move || {
            // Where that may not be, it goes beside them.
            let _ = setpriority_process(None, LAST);
            runtime.block_on(async {
                tokio::select! {
                    () = self.serve(director) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Serving { _thread: serving })
    }

    async fn serve(self, director: Director) {
        let app = api::routes()
            .merge(page::routes())
            .layer(middleware::from_fn_with_state(self.access.clone(), access::check))
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(director);
        let places = Arc::new(Semaphore::new(self.connections));
        // They end with this.
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let app = app.clone();
                    connections.spawn(async move {
                        talk(stream, app, self.request).await;
                        drop(place);
                    });
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// Answers the requests of a connection, each in its time.
async fn talk(stream: TcpStream, app: Router, patience: Duration) {
    let app = app.layer(middleware::from_fn(move |asked: Request, next: Next| async move {
        let answer = timeout(patience, next.run(asked)).await;
        answer.unwrap_or_else(|_| api::refuse(StatusCode::REQUEST_TIMEOUT, "it took too long"))
    }));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD);
    // That the client has gone, or speaks no HTTP, concerns nobody else.
    let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
}
