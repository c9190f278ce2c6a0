//! The limit on the open connections of a client.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use crate::balancer::mask_to_prefix;
use crate::setting::{SettingError, check_range};
use crate::sync::{Mutex, lock};

/// The open connections by client network, with a limit for each network.
///
/// An IPv4 client is its address; an IPv6 client is its /64, because a site has all addresses of it
/// (RFC 6177, section 2). An IPv4-mapped address counts as the IPv4 address.
///
/// A network is in the table while it has connections, so the table has at most as many entries as
/// there are connections, and at most its capacity; connections of further networks are refused.
///
/// # Cost
/// An acquire and a release are each one lock of one of 64 shards and two SipHashes with a random key
/// (clients cannot choose their shard), about 60 ns without contention. A network takes 29 to 57
/// bytes of the table, depending on its fill; a [`ClientPermit`] 32.
#[derive(Debug)]
pub(in crate::forward) struct ClientLimits {
    config: ClientLimitsBuilder,
    hash_keys: RandomState,
    shards: Box<[Mutex<HashMap<IpAddr, u32>>]>,
}

/// The limit, prefixes and capacity of a [`ClientLimits`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(in crate::forward) struct ClientLimitsBuilder {
    limit: u32,
    prefixes: ClientPrefixes,
    capacity: usize,
}

/// How many leading bits of an address identify a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientPrefixes {
    pub(crate) ipv4: u8,
    pub(crate) ipv6: u8,
}

/// A permit for one connection of a client; its drop releases the permit.
#[derive(Debug)]
#[must_use = "a dropped permit is released"]
pub(in crate::forward) struct ClientPermit {
    clients: Arc<ClientLimits>,
    network: IpAddr,
}

/// A single shard for loom, which would explore each shard.
const SHARDS: usize = if cfg!(lvs_loom) { 1 } else { 64 };
const DEFAULT_CAPACITY: usize = 1 << 20;
/// Shards of at most this capacity are never shrunk.
const MIN_SHRINK_CAPACITY: usize = 64;

impl ClientLimitsBuilder {
    /// Sets the prefix lengths that identify a client.
    pub(in crate::forward) fn prefixes(self, prefixes: ClientPrefixes) -> Self {
        Self { prefixes, ..self }
    }

    /// Sets the most networks in the table, to within a shard's share. Default: 1 048 576.
    #[cfg(test)]
    pub(in crate::forward) fn capacity(self, networks: usize) -> Self {
        Self { capacity: networks, ..self }
    }

    /// Makes an empty table.
    pub(in crate::forward) fn build(self) -> Arc<ClientLimits> {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::default())).collect();
        Arc::new(ClientLimits { config: self, hash_keys: RandomState::new(), shards })
    }

    fn network(&self, client: IpAddr) -> IpAddr {
        mask_to_prefix(client.to_canonical(), self.prefixes.ipv4, self.prefixes.ipv6)
    }
}

impl ClientPrefixes {
    const DEFAULT: Self = Self { ipv4: 32, ipv6: 64 };

    /// Checks the values; their names are those of the forwarders' setters.
    pub(in crate::forward) fn validate(self) -> Result<(), SettingError> {
        check_range("client_prefixes.ipv4", self.ipv4, 0..=32)?;
        check_range("client_prefixes.ipv6", self.ipv6, 0..=128).map(drop)
    }
}

impl Default for ClientPrefixes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl ClientLimits {
    /// Returns a builder for a limit of connections per client, at least 1.
    ///
    /// The values are in their ranges: a forwarder has checked them.
    pub(in crate::forward) const fn builder(limit: u32) -> ClientLimitsBuilder {
        ClientLimitsBuilder { limit, prefixes: ClientPrefixes::DEFAULT, capacity: DEFAULT_CAPACITY }
    }

    /// Acquires a permit for a connection of a client; `None` if the client is at its limit, or if the
    /// table is full.
    pub(in crate::forward) fn try_acquire(
        self: &Arc<Self>,
        client: IpAddr,
    ) -> Option<ClientPermit> {
        let network = self.config.network(client);
        let mut shard = lock(self.shard(network));
        let is_full = shard.len() >= self.config.capacity.div_ceil(SHARDS);
        match shard.entry(network) {
            Entry::Occupied(entry) if *entry.get() >= self.config.limit => return None,
            Entry::Occupied(entry) => *entry.into_mut() += 1,
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(entry) => {
                entry.insert(1);
            }
        }
        Some(ClientPermit { clients: Arc::clone(self), network })
    }

    /// Returns the open connections of a client.
    #[cfg(test)]
    pub(in crate::forward) fn connections(&self, client: IpAddr) -> u32 {
        let network = self.config.network(client);
        lock(self.shard(network)).get(&network).copied().unwrap_or(0)
    }

    /// Returns the number of client networks with open connections.
    #[cfg(test)]
    pub(in crate::forward) fn networks(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn release(&self, network: IpAddr) {
        let mut shard = lock(self.shard(network));
        let Some(connections) = shard.get_mut(&network) else { return };
        *connections -= 1;
        if *connections == 0 {
            shard.remove(&network);
            // Memory is freed after a flood; only below a quarter, so that the shard does not grow again at
            // once.
            if shard.capacity() > MIN_SHRINK_CAPACITY && shard.len() < shard.capacity() / 4 {
                let keep = shard.len() * 2;
                shard.shrink_to(keep);
            }
        }
    }

    fn shard(&self, network: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        &self.shards[self.hash_keys.hash_one(network) as usize % SHARDS]
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.clients.release(self.network);
    }
}

#[cfg(all(test, lvs_loom))]
mod model {
    use loom::thread;

    use super::*;

    /// `RUSTFLAGS="--cfg lvs_loom" cargo test --release --lib client_limits`
    #[test]
    fn a_limit_of_one_is_never_two_permits() {
        loom::model(|| {
            let clients = ClientLimits::builder(1).build();
            let ip = IpAddr::from([192, 0, 2, 1]);
            let other = {
                let clients = Arc::clone(&clients);
                thread::spawn(move || {
                    clients.try_acquire(ip).map(|permit| (clients.connections(ip), permit))
                })
            };
            let mine = clients.try_acquire(ip);
            if mine.is_some() {
                assert_eq!(clients.connections(ip), 1);
            }
            let theirs = other.join().expect("no panic");
            assert!(mine.is_some() != theirs.is_some(), "exactly one thread holds the only permit");
            drop((mine, theirs));
            assert_eq!(clients.networks(), 0);
        });
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
