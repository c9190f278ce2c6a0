//! The admin server's thread: it accepts connections within limits, and serves their requests.

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

use super::access::{self, AdminAccess};
use super::api::{self, AdminContext};
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
            .merge(page::routes())
            .layer(middleware::from_fn_with_state(self.access.clone(), access::authorize_request))
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BODY))
            .with_state(context);
        let permits = Arc::new(Semaphore::new(self.max_connections.min(Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (app, supervisor) = (app.clone(), self.supervisor.clone());
                    let request_timeout = self.request_timeout;
                    connections.spawn(async move {
                        let serving = serve_connection(stream, app, request_timeout);
                        if let Err(message) = catch_panic(serving).await {
                            supervisor.record_panic("admin connection", &message);
                        }
                        drop(permit);
                    });
                }
                Err(_) => sleep(ACCEPT_RETRY_INTERVAL).await,
            }
        }
    }
}

/// Answers the requests of a connection, each within the time limit.
async fn serve_connection(stream: TcpStream, app: Router, request_timeout: Duration) {
    let app = app.layer(middleware::from_fn(move |request: Request, next: Next| async move {
        let response = timeout(request_timeout, next.run(request)).await;
        response.unwrap_or_else(|_| {
            let reason = format!("the request took longer than {request_timeout:?}");
            error_response(StatusCode::REQUEST_TIMEOUT, &reason)
        })
    }));
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(request_timeout)
        .max_buf_size(MAX_REQUEST_HEAD);
    // An error means that the client has gone, or does not speak HTTP.
    let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
}
