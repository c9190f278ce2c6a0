//! One connection: find it a backend, carry it, and say how it ended.

use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{Instrument, debug, debug_span};

use super::backend_connect::ClientInfo;
use super::listener::AcceptedClient;
use super::preamble::ParsedPreamble;
use super::proxying::Proxying;
use super::relay::Relay;
use super::session::TcpSession;
use super::stream::{ResetOnDrop, StreamSocket};
use super::worker::WorkerContext;
use crate::forward::counters::{ConnectionEnd, RefusalReason};
use crate::forward::limits::ConnectionPermit;

/// Starts to carry a connection, from its first byte to its last.
pub(super) fn spawn_connection(
    crew: &Arc<WorkerContext>,
    (stream, client, local): AcceptedClient,
    slot: ConnectionPermit,
    connections: &mut JoinSet<()>,
) {
    // Entered here and not in the task, which may be cut before it has run at all.
    let entry = TcpSession::new(Arc::clone(crew), client, local, slot);
    let span = debug_span!("connection", service = &*crew.config().name, client = ?client);
    let mut beginning = Box::pin(start_proxying(entry, stream.into()));
    let serve = async move {
        // What finding a backend takes is given back before the connection is carried.
        while let Some(carry) = beginning.await {
            let (mut entry, relay, end) = carry.await;
            // A backend that died with the connection in its accept queue has refused it late.
            if end == ConnectionEnd::BackendAborted
                && entry.bytes_relayed == [0, 0]
                && let Some(client) = relay.into_client()
                && entry.release_for_retry()
            {
                beginning = Box::pin(start_proxying(entry, client));
            } else {
                return entry.finish(end);
            }
        }
    };
    // A span takes room in every task, though it be empty.
    if span.is_disabled() {
        connections.spawn(serve);
    } else {
        connections.spawn(serve.instrument(span));
    }
}

/// Finds a backend for the client; `None` if there is none, and the end is written down.
///
/// In a box, since the task keeps room for what is handed from one step to the next.
async fn start_proxying(mut entry: TcpSession, client: ResetOnDrop) -> Option<Box<Proxying>> {
    match open_relay(&mut entry, client).await {
        Ok(relay) => Some(Box::new(Proxying::new(entry, relay))),
        Err(refusal) => {
            debug!(?refusal, "connection refused");
            entry.finish(ConnectionEnd::Refused(refusal));
            None
        }
    }
}

async fn open_relay(entry: &mut TcpSession, client: ResetOnDrop) -> Result<Relay, RefusalReason> {
    let crew = Arc::clone(&entry.worker);
    let preamble = &crew.config().preamble;
    let mut said = ParsedPreamble::default();
    if preamble.proxy_header_timeout.is_none() {
        // Known before a word is said: who keeps silent holds no more places than others.
        entry.acquire_client_permit()?;
    }
    if !entry.has_read_preamble {
        said = preamble.read(&client).await?;
        entry.has_read_preamble = true;
        entry.proxied_client = said.proxied_client().map(Box::new);
    }
    entry.acquire_client_permit()?;
    let service = preamble.select_service(&said, &crew.config().balancer)?;
    let key = preamble.flow_key(&said);
    let asker =
        ClientInfo { client: entry.client_addr(), local: entry.local_addr(), flow_key: key };
    let (server, lease) =
        crew.connect_backend(&client, service, asker, &mut entry.progress).await?;
    preamble.write_proxy_header(&mut said, asker);
    entry.start_relaying(lease);
    Ok(Relay::new(client, StreamSocket::Tcp(server).into(), said.initial_bytes))
}
