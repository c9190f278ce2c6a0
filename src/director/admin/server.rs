//! The admin server's thread: it accepts connections within limits, and serves their requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::setpriority_process;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::access::{self, AdminAccess};
use super::api::{self, AdminContext};
use super::connections::{AdminConnectionTable, ConnectionHandle};
use super::edits::{self, RequestClient};
use super::entries;
use super::page;
use super::response::error_response;
use crate::director::config::{AdminConfig, HumanDuration};
use crate::director::error::DirectorError;
use crate::director::supervisor::TaskSupervisor;
use crate::panics::catch_panic;

/// The default limit of connections.
pub(in crate::director) const DEFAULT_MAX_ADMIN_CONNECTIONS: usize = 64;
/// The default time limit of a request.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest request body; changes of all servers of a large service fit.
const MAX_REQUEST_BODY: usize = 1 << 20;
/// The longest request head.
const MAX_REQUEST_HEAD: usize = 16 << 10;
/// The priority of the thread: the lowest (`nice(2)`).
const ADMIN_THREAD_NICE: i32 = 19;
/// The name of the connections among the tasks.
const CONNECTION_TASK: &str = "admin connection";
/// The pause after `accept` has failed, for want of descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A running admin server; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::director) struct AdminServer {
    configured: SocketAddr,
    listener: Arc<TcpListener>,
    _stop: oneshot::Sender<()>,
}

/// What the thread needs.
struct AdminService {
    listener: Arc<TcpListener>,
    access: AdminAccess,
    max_connections: usize,
    request_timeout: Duration,
    supervisor: TaskSupervisor,
}

impl AdminServer {
    /// Starts the thread.
    pub(in crate::director) fn start(
        config: &AdminConfig,
        listener: Arc<TcpListener>,
        context: AdminContext,
        supervisor: &TaskSupervisor,
    ) -> Result<Self, DirectorError> {
        let service = AdminService {
            listener: Arc::clone(&listener),
            access: AdminAccess::new(config),
            max_connections: config.max_connections.unwrap_or(DEFAULT_MAX_ADMIN_CONNECTIONS),
            supervisor: supervisor.clone(),
            request_timeout: config
                .request_timeout
                .map_or(DEFAULT_REQUEST_TIMEOUT, |HumanDuration(time)| time),
        };
        supervisor.register(CONNECTION_TASK);
        let (stop, stopped) = oneshot::channel::<()>();
        let spawn = || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            thread::Builder::new().name("lvs-admin".to_owned()).spawn(move || {
                // Without the permission, the thread keeps the priority of the others.
                let _ = setpriority_process(None, ADMIN_THREAD_NICE);
                runtime.block_on(async {
                    tokio::select! {
                        () = service.supervisor.run("admin", || service.run(context.clone())) => {}
                        _ = stopped => {}
                    }
                });
            })
        };
        spawn().map_err(|source| DirectorError::AdminThread { source })?;
        Ok(Self { configured: config.listen, listener, _stop: stop })
    }

    /// Returns the bound address, with the real port where the configuration has 0.
    pub(in crate::director) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or(self.configured)
    }

    /// Returns the listener with the address that the configuration gives it.
    pub(in crate::director) fn listener(&self) -> (SocketAddr, Arc<TcpListener>) {
        (self.configured, Arc::clone(&self.listener))
    }
}

impl AdminService {
    async fn run(&self, context: AdminContext) {
        let app = api::routes()
            .merge(edits::routes())
            .merge(entries::routes())
            .merge(page::routes())
            .layer(middleware::from_fn_with_state(self.access.clone(), access::authorize_request))
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BODY))
            .with_state(context);
        let requests = Arc::new(AtomicU64::new(0));
        let mut table = AdminConnectionTable::new(self.max_connections);
        // Dropped, it ends the connections.
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((stream, client)) = self.listener.accept().await else {
                sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            };
            if let Some(OpenConnection { task, .. }) = table.make_room(client.ip()) {
                task.abort();
            }
            let last_request = Arc::new(AtomicU64::new(requests.fetch_add(1, Relaxed)));
            let connection = AdminConnection {
                app: app.clone(),
                peer: RequestClient(client),
                requests: Arc::clone(&requests),
                last_request: Arc::clone(&last_request),
                request_timeout: self.request_timeout,
            };
            let supervisor = self.supervisor.clone();
            let task = connections.spawn(async move {
                if let Err(message) = catch_panic(connection.serve(stream)).await {
                    supervisor.record_panic(CONNECTION_TASK, &message);
                }
            });
            table.insert(client.ip(), OpenConnection { last_request, task });
            // The connection reads its request, if that is here, before others are accepted: many that
            // are accepted at once would take its place.
            yield_now().await;
        }
    }
}

/// A connection in the table of those that are open.
#[derive(Debug)]
struct OpenConnection {
    last_request: Arc<AtomicU64>,
    task: AbortHandle,
}

impl ConnectionHandle for OpenConnection {
    fn last_request(&self) -> u64 {
        self.last_request.load(Relaxed)
    }

    fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// A connection.
struct AdminConnection {
    app: Router,
    peer: RequestClient,
    /// Counts the requests of all connections.
    requests: Arc<AtomicU64>,
    /// The number of this connection's last request.
    last_request: Arc<AtomicU64>,
    request_timeout: Duration,
}

impl AdminConnection {
    /// Answers the requests, each within the time limit.
    async fn serve(self, stream: TcpStream) {
        let Self { app, peer, requests, last_request, request_timeout } = self;
        // Ends the connection of a client that does not read its answer. Without the option it lasts
        // until its place is needed.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(request_timeout));
        let app = app.layer(Extension(peer));
        let app = app.layer(middleware::from_fn(move |request: Request, next: Next| {
            last_request.store(requests.fetch_add(1, Relaxed), Relaxed);
            async move {
                let response = timeout(request_timeout, next.run(request)).await;
                response.unwrap_or_else(|_| {
                    let reason = format!("the request took longer than {request_timeout:?}");
                    error_response(StatusCode::REQUEST_TIMEOUT, &reason)
                })
            }
        }));
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(request_timeout)
            .max_buf_size(MAX_REQUEST_HEAD);
        // An error means that the client has gone, or does not speak HTTP.
        let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
    }
}
