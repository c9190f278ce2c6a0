//! Templates for another process: after a restart, or for a standby.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Persistence, PersistenceTemplate, TemplateKey};
use crate::backend::BackendId;
use crate::sync::lock;

/// A template as another process can use it: with a duration and the name of the backend.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
pub struct SavedTemplate {
    /// The network, or the address of a single client.
    pub network: IpAddr,
    /// The name of the backend.
    pub backend: BackendId,
    /// The time until the template expires.
    pub remaining: Duration,
}

impl<T> Persistence<T> {
    /// Returns the valid templates of networks whose backend the set has: those used after `since`, or all.
    ///
    /// Locks a sixteenth of the table at a time, for about 10 ns a template.
    #[must_use]
    pub fn export(&self, now: Instant, since: Option<Instant>) -> Vec<SavedTemplate> {
        let snapshot = self.balancer.snapshot();
        let names: HashMap<u64, &BackendId> =
            snapshot.members().iter().map(|member| (member.serial(), member.id())).collect();
        // A template that was used at `since` or later expires no earlier than this.
        let ends = since.and_then(|since| since.checked_add(self.settings.timeout));
        let mut saved = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let used = shard.templates.iter().filter(|(_, template)| {
                template.expires > now && ends.is_none_or(|ends| template.expires >= ends)
            });
            saved.extend(used.filter_map(|(key, template)| {
                let TemplateKey::Network(network) = key else { return None };
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

    /// Adds templates of another table whose backend the set has by name; a template of the same
    /// network is replaced. Returns how many were added: the set lacks the backends of the others, or
    /// they exceed the [capacity](super::PersistenceBuilder::capacity). No template is valid for longer
    /// than the timeout.
    pub fn restore(&self, saved: impl IntoIterator<Item = SavedTemplate>, now: Instant) -> usize {
        let snapshot = self.balancer.snapshot();
        let serials: HashMap<&BackendId, u64> =
            snapshot.members().iter().map(|member| (member.id(), member.serial())).collect();
        let mut added = 0;
        for SavedTemplate { network, backend, remaining } in saved {
            let Some(&serial) = serials.get(&backend) else { continue };
            let network = self.settings.client_network(network);
            let template =
                PersistenceTemplate { serial, expires: now + remaining.min(self.settings.timeout) };
            let key = TemplateKey::Network(network);
            let mut shard = lock(self.shard(key));
            shard.remove_expired(now, self.settings.timeout);
            added += usize::from(shard.insert(key, template, self.settings.capacity));
        }
        added
    }
}
