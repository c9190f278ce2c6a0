//! Where the parts of a director publish their events: it logs them, sends them to readers, and keeps
//! the last for the API.

use std::collections::VecDeque;
use std::sync::Arc;

use super::events::{DirectorEvent, DirectorEvents};
use crate::events::EventSender;
use crate::sync::{Mutex, lock};

/// Events that are kept for the API.
const MAX_RECENT_EVENTS: usize = 256;

/// The events of a director. A clone publishes and reads the same events.
#[derive(Clone, Debug)]
pub(super) struct EventLog(Arc<Mutex<EventLogState>>);

#[derive(Debug)]
struct EventLogState {
    /// The newest last.
    recent: VecDeque<DirectorEvent>,
    /// `None` when the director has ended: then the readers' streams end.
    sender: Option<EventSender<DirectorEvent>>,
}

impl EventLog {
    pub(super) fn new() -> Self {
        let state = EventLogState { recent: VecDeque::new(), sender: Some(EventSender::new()) };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Logs an event, unless its source has, and sends it to all readers.
    pub(super) fn publish(&self, event: DirectorEvent) {
        match &event {
            // The monitor logs its events, whoever runs it; `Director::reload` returns its result.
            DirectorEvent::Health(_) | DirectorEvent::Reload(_) => {}
            event if event.is_alert() => tracing::warn!("{event}"),
            event => tracing::info!("{event}"),
        }
        // The lock is held while sending, so that readers and `recent` have one order.
        let mut state = lock(&self.0);
        if state.recent.len() == MAX_RECENT_EVENTS {
            state.recent.pop_front();
        }
        state.recent.push_back(event.clone());
        if let Some(sender) = &state.sender {
            sender.send(event);
        }
    }

    /// Returns a reader of the events from now on.
    pub(super) fn subscribe(&self) -> DirectorEvents {
        match &lock(&self.0).sender {
            Some(sender) => sender.subscribe(),
            None => EventSender::new().subscribe(),
        }
    }

    /// Returns the last events, the oldest first.
    pub(super) fn recent(&self) -> Vec<DirectorEvent> {
        lock(&self.0).recent.iter().cloned().collect()
    }

    /// Ends the readers' streams, and forgets the events: a start that fails returns an error that one of
    /// them has too.
    pub(super) fn close(&self) {
        let mut state = lock(&self.0);
        state.sender = None;
        state.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::events::ReloadEvent;

    #[test]
    fn readers_and_the_api_see_the_same_events_until_the_end() {
        let log = EventLog::new();
        let mut events = log.subscribe();
        for number in 0..=MAX_RECENT_EVENTS {
            let error = number.to_string().into();
            log.publish(DirectorEvent::Reload(ReloadEvent::new(Err(error))));
        }
        let recent: Vec<_> = log.recent().iter().map(ToString::to_string).collect();
        log.close();
        let read = std::iter::from_fn(|| events.blocking_next());
        let read: Vec<_> = read.map(|event| event.expect("few events").to_string()).collect();
        assert_eq!(read.len(), MAX_RECENT_EVENTS + 1);
        assert_eq!(recent, read[1..]);
        assert!(log.recent().is_empty());
        assert!(log.subscribe().blocking_next().is_none());
    }
}
