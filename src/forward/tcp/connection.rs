//! One connection: find it a backend, carry it, and say how it ended.

use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{Instrument, debug, debug_span};

use super::carry::Carry;
use super::entry::Entry;
use super::establish::Asker;
use super::listener::Accepted;
use super::preamble::Said;
use super::relay::Relay;
use super::stream::{Leg, Stream};
use super::worker::Crew;
use crate::forward::counters::{End, Refusal};
use crate::forward::limits::Slot;

/// Starts to carry a connection, from its first byte to its last.
pub(super) fn spawn(
    crew: &Arc<Crew>,
    (stream, client, local): Accepted,
    slot: Slot,
    connections: &mut JoinSet<()>,
) {
    // Entered here and not in the task, which may be cut before it has run at all.
    let entry = Entry::new(Arc::clone(crew), client, local, slot);
    let span = debug_span!("connection", service = &*crew.config().name, client = ?client);
    let mut beginning = Box::pin(begin(entry, stream.into()));
    let serve = async move {
        // What finding a backend takes is given back before the connection is carried.
        while let Some(carry) = beginning.await {
            let (mut entry, relay, end) = carry.await;
            // A backend that died with the connection in its accept queue has refused it late.
            if end == End::ServerBroke
                && entry.passed == [0, 0]
                && let Some(client) = relay.into_client()
                && entry.turn_to_another()
            {
                beginning = Box::pin(begin(entry, client));
            } else {
                return entry.close(end);
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
async fn begin(mut entry: Entry, client: Leg) -> Option<Box<Carry>> {
    match find(&mut entry, client).await {
        Ok(relay) => Some(Box::new(Carry::new(entry, relay))),
        Err(refusal) => {
            debug!(?refusal, "connection refused");
            entry.close(End::Refused(refusal));
            None
        }
    }
}

async fn find(entry: &mut Entry, client: Leg) -> Result<Relay, Refusal> {
    let crew = Arc::clone(&entry.crew);
    let preamble = &crew.config().preamble;
    let mut said = Said::default();
    if preamble.proxy.is_none() {
        // Known before a word is said: who keeps silent holds no more places than others.
        entry.take_place()?;
    }
    if !entry.has_spoken {
        said = preamble.hear(&client).await?;
        entry.has_spoken = true;
        entry.told = said.client().map(Box::new);
    }
    entry.take_place()?;
    let service = preamble.service(&said, &crew.config().balancer)?;
    let key = preamble.key(&said);
    let asker = Asker { client: entry.source(), local: entry.local(), key };
    let (server, lease) = crew.establish(&client, service, asker, &mut entry.story).await?;
    preamble.introduce(&mut said, asker);
    entry.enter(lease);
    Ok(Relay::new(client, Stream::Tcp(server).into(), said.bytes))
}
