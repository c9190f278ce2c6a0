//! Templates that outlive a process: for a restart, or for a standby.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Persistence, PersistenceTemplate};
use crate::backend::BackendId;
use crate::sync::lock;

/// Which backend the clients of a network belong to, and for how long if they do not come back.
///
/// Times are durations and backends have their names, so that it means the same in another process.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SavedTemplate {
    /// The network, or the client itself.
    pub network: IpAddr,
    /// Its backend.
    pub backend: BackendId,
    /// How long it still holds.
    pub remaining: Duration,
}

impl<T> Persistence<T> {
    /// The templates that hold, of backends that are there; those used since then, or all.
    ///
    /// Locks a sixteenth of the table at a time, for some 10 ns a template.
    #[must_use]
    pub fn export(&self, now: Instant, since: Option<Instant>) -> Vec<SavedTemplate> {
        let snapshot = self.balancer.snapshot();
        let names: HashMap<u64, &BackendId> =
            snapshot.members().iter().map(|it| (it.serial(), it.id())).collect();
        // What was used then ends no earlier.
        let ends = since.and_then(|since| since.checked_add(self.settings.timeout));
        let mut saved = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let used = shard.templates.iter().filter(|(_, template)| {
                template.expires > now && ends.is_none_or(|ends| template.expires >= ends)
            });
            saved.extend(used.filter_map(|(network, template)| {
                let backend = (*names.get(&template.serial)?).clone();
                Some(SavedTemplate {
                    network: *network,
                    backend,
                    remaining: template.expires - now,
                })
            }));
        }
        saved
    }

    /// Takes up templates that another table had, of backends of the same names; one that is here
    /// already gives way. Tells how many were taken: the others are of backends that are not here, or
    /// beyond the [capacity](super::PersistenceBuilder::capacity). None holds longer than the timeout.
    pub fn restore(&self, saved: impl IntoIterator<Item = SavedTemplate>, now: Instant) -> usize {
        let snapshot = self.balancer.snapshot();
        let serials: HashMap<&BackendId, u64> =
            snapshot.members().iter().map(|it| (it.id(), it.serial())).collect();
        let mut taken = 0;
        for SavedTemplate { network, backend, remaining: left } in saved {
            let Some(&serial) = serials.get(&backend) else { continue };
            let network = self.settings.client_network(network);
            let template =
                PersistenceTemplate { serial, expires: now + left.min(self.settings.timeout) };
            let mut shard = lock(self.shard(network));
            shard.remove_expired(now, self.settings.timeout);
            taken += usize::from(shard.insert(network, template, self.settings.capacity));
        }
        taken
    }
}
