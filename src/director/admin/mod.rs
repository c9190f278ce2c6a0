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

use self::access::AdminAccess;
use super::Director;
use super::config::{AdminConfig, HumanDuration};

/// Connections at a time, unless that is said.
const DEFAULT_MAX_ADMIN_CONNECTIONS: usize = 64;
/// How long a request may take, unless that is said.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest body: a service's servers, all changed at once.
const MAX_REQUEST_BODY: usize = 1 << 20;
/// The longest head of a request.
const MAX_REQUEST_HEAD: usize = 16 << 10;
/// The priority of the thread: the last of all (`nice(2)`).
const ADMIN_THREAD_NICE: i32 = 19;
/// When accepting fails, which is for want of descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The admin pages.
#[derive(Clone, Debug)]
pub(super) struct AdminServer {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    access: AdminAccess,
    max_connections: usize,
    request_timeout: Duration,
}

/// Admin pages that are served.
#[derive(Debug)]
pub(super) struct AdminServerGuard {
    _thread: oneshot::Sender<()>,
}

impl AdminServer {
    pub(super) fn new(asked: &AdminConfig, listener: Arc<TcpListener>) -> Self {
        let address = listener.local_addr().unwrap_or(asked.listen);
        Self {
            listener,
            address,
            access: AdminAccess::new(asked),
            max_connections: asked.max_connections.unwrap_or(DEFAULT_MAX_ADMIN_CONNECTIONS).max(1),
            request_timeout: asked
                .request_timeout
                .map_or(DEFAULT_REQUEST_TIMEOUT, |HumanDuration(time)| time),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn listener(&self) -> Arc<TcpListener> {
        Arc::clone(&self.listener)
    }

    /// Serves them until what is returned is dropped.
    pub(super) fn start(self, director: Director) -> io::Result<AdminServerGuard> {
        let (serving, ended) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("lvs-admin".to_owned()).spawn(move || {
            // Where that may not be, it goes beside them.
            let _ = setpriority_process(None, ADMIN_THREAD_NICE);
            runtime.block_on(async {
                tokio::select! {
                    () = self.serve(director) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(AdminServerGuard { _thread: serving })
    }

    async fn serve(self, director: Director) {
        let app = api::routes()
            .merge(page::routes())
            .layer(middleware::from_fn_with_state(self.access.clone(), access::authorize_request))
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BODY))
            .with_state(director);
        let places = Arc::new(Semaphore::new(self.max_connections));
        // They end with this.
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let app = app.clone();
                    connections.spawn(async move {
                        serve_connection(stream, app, self.request_timeout).await;
                        drop(place);
                    });
                }
                Err(_) => sleep(ACCEPT_RETRY_INTERVAL).await,
            }
        }
    }
}

/// Answers the requests of a connection, each in its time.
async fn serve_connection(stream: TcpStream, app: Router, patience: Duration) {
    let app = app.layer(middleware::from_fn(move |asked: Request, next: Next| async move {
        let answer = timeout(patience, next.run(asked)).await;
        answer.unwrap_or_else(|_| {
            api::error_response(StatusCode::REQUEST_TIMEOUT, "it took too long")
        })
    }));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_REQUEST_HEAD);
    // That the client has gone, or speaks no HTTP, concerns nobody else.
    let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
}
