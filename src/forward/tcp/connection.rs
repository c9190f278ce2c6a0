//! One connection: reads the preamble, connects to a backend, proxies, and reports the end.

use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::field::display;
use tracing::{Instrument, debug, debug_span};

use super::backend_connect::{BackendConnection, BackendConnector};
use super::client_info::ClientInfo;
use super::context::WorkerContext;
use super::listener::AcceptedClient;
use super::preamble::ParsedPreamble;
use super::proxying::{Proxying, ProxyingResult};
use super::relay::{Relay, RelayedBytes};
use super::session::TcpSession;
use super::stream::{ResetOnDrop, StreamSocket};
use crate::forward::counters::{ConnectionEnd, RefusalReason};
use crate::forward::limits::ConnectionPermit;

/// Spawns the task that serves a connection from accept to end.
pub(super) fn spawn_connection(
    context: &Arc<WorkerContext>,
    accepted: AcceptedClient,
    permit: ConnectionPermit,
    connections: &mut JoinSet<()>,
) {
    let AcceptedClient { stream, client, local, descriptors } = accepted;
    // Made here and not in the task, which may be aborted before its first poll.
    let session = TcpSession::new(Arc::clone(context), client, local, (permit, descriptors));
    let client_field = client.map(display);
    let span = debug_span!("connection", service = &*context.config().name, client = client_field);
    let mut connecting = Box::pin(start_proxying(session, stream.into()));
    let serve = async move {
        // The memory for the search for a backend is freed before bytes are proxied.
        while let Some(proxying) = connecting.await {
            let ProxyingResult { mut session, relay, end } = proxying.await;
            // A backend that died with the connection in its accept queue has refused it late.
            if end == ConnectionEnd::BackendAborted
                && session.bytes_relayed == RelayedBytes::default()
                && let Some(client) = relay.into_client()
                && session.release_for_retry()
            {
                connecting = Box::pin(start_proxying(session, client));
            } else {
                return session.finish(end);
            }
        }
    };
    // A span takes space in every task, even if it is disabled.
    if span.is_disabled() {
        connections.spawn(serve);
    } else {
        connections.spawn(serve.instrument(span));
    }
}

/// Connects the client to a backend; `None` if the connection is refused, and then the session is
/// finished.
///
/// The result is boxed, since the task reserves space for what one step passes to the next.
async fn start_proxying(mut session: TcpSession, client: ResetOnDrop) -> Option<Box<Proxying>> {
    match open_relay(&mut session, client).await {
        Ok(relay) => Some(Box::new(Proxying::new(session, relay))),
        Err(refusal) => {
            debug!("the connection is refused: {}", refusal.name());
            session.finish(ConnectionEnd::Refused(refusal));
            None
        }
    }
}

async fn open_relay(session: &mut TcpSession, client: ResetOnDrop) -> Result<Relay, RefusalReason> {
    let context = Arc::clone(&session.context);
    let config = &context.config().preamble;
    let mut preamble = ParsedPreamble::default();
    if config.proxy_header_timeout.is_none() {
        // The client is known before its first byte: a silent client counts against its limit.
        session.acquire_client_permit()?;
    }
    if !session.has_read_preamble {
        preamble = config.read(&client).await?;
        session.has_read_preamble = true;
        if let Some((client, destination)) = preamble.proxied_addresses() {
            session.set_proxied(client, destination);
        }
    }
    session.acquire_client_permit()?;
    let service = config.select_service(&preamble, context.config().route.balancer())?;
    let client_info = ClientInfo {
        client: session.client_addr(),
        local: session.local_addr(),
        flow_key: config.flow_key(&preamble),
    };
    let connector = BackendConnector { context: &context, service, client_info };
    let BackendConnection { stream, lease } =
        connector.connect(&client, &mut session.progress).await?;
    config.write_proxy_header(&mut preamble, client_info);
    session.start_relaying(lease);
    Ok(Relay::new(client, StreamSocket::Tcp(stream).into(), preamble.initial_bytes))
}
