//! How many connections one client has at once.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use crate::balancer::mask_to_prefix;
use crate::sync::{Mutex, lock};

/// Connections by client network, with a bound for each.
///
/// An IPv4 client is its address; an IPv6 client is its /64, because whoever has one address of it
/// has them all (RFC 6177, section 2). A mapped IPv4 address counts as what it maps.
///
/// A network is in the table as long as it has connections, so the table is never longer than the
/// list of connections, nor than its capacity; one whose place in the table is missing is refused.
///
/// # Cost
/// Entering and leaving are each one lock of one of 64 shards and two SipHashes under a random key
/// (clients cannot choose their shard), some 60 ns where nobody else is in the shard. A network
/// takes 29 to 57 bytes of table, as full as that is; a [`ClientPermit`] 32.
#[derive(Debug)]
pub(in crate::forward) struct ClientLimits {
    config: ClientLimitsBuilder,
    hash_keys: RandomState,
    shards: Box<[Mutex<HashMap<IpAddr, u32>>]>,
}

/// What a [`ClientLimits`] enforces.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(in crate::forward) struct ClientLimitsBuilder {
    limit: u32,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    capacity: usize,
}

/// One connection of one client; dropping it counts down.
#[derive(Debug)]
#[must_use = "dropping a place gives it back"]
pub(in crate::forward) struct ClientPermit {
    clients: Arc<ClientLimits>,
    network: IpAddr,
}

/// One for loom, which would explore each of them.
const SHARDS: usize = if cfg!(lvs_loom) { 1 } else { 64 };
const DEFAULT_CAPACITY: usize = 1 << 20;
/// Tables below this size are never shrunk.
const MIN_SHRINK_CAPACITY: usize = 64;

impl ClientLimitsBuilder {
    /// The bits of an IPv4 client that count. Default: 32; larger values count as 32.
    pub(in crate::forward) fn ipv4_prefix(self, bits: u8) -> Self {
        Self { ipv4_prefix: bits.min(32), ..self }
    }

    /// The bits of an IPv6 client that count. Default: 64; values above 128 count as 128.
    pub(in crate::forward) fn ipv6_prefix(self, bits: u8) -> Self {
        Self { ipv6_prefix: bits.min(128), ..self }
    }

    /// The most networks in the table at once, to within a shard's share. Default: 1 048 576.
    #[cfg(test)]
    pub(in crate::forward) fn capacity(self, networks: usize) -> Self {
        Self { capacity: networks, ..self }
    }

    /// Makes the table.
    pub(in crate::forward) fn build(self) -> Arc<ClientLimits> {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::default())).collect();
        Arc::new(ClientLimits { config: self, hash_keys: RandomState::new(), shards })
    }

    fn network(&self, client: IpAddr) -> IpAddr {
        mask_to_prefix(client.to_canonical(), self.ipv4_prefix, self.ipv6_prefix)
    }
}

impl ClientLimits {
    /// At most so many connections for each client; 0 counts as 1.
    #[expect(clippy::new_ret_no_self, reason = "the rule is the way in")]
    pub(in crate::forward) const fn builder(limit: u32) -> ClientLimitsBuilder {
        let limit = if limit == 0 { 1 } else { limit };
        ClientLimitsBuilder { limit, ipv4_prefix: 32, ipv6_prefix: 64, capacity: DEFAULT_CAPACITY }
    }

    /// Counts a connection of a client; `None` if it has its number already, or if the table is
    /// full.
    pub(in crate::forward) fn try_acquire(
        self: &Arc<Self>,
        client: IpAddr,
    ) -> Option<ClientPermit> {
        let network = self.config.network(client);
        let mut shard = lock(self.shard(network));
        let full = shard.len() >= self.config.capacity.div_ceil(SHARDS);
        match shard.entry(network) {
            Entry::Occupied(known) if *known.get() >= self.config.limit => return None,
            Entry::Occupied(known) => *known.into_mut() += 1,
            Entry::Vacant(_) if full => return None,
            Entry::Vacant(new) => {
                new.insert(1);
            }
        }
        Some(ClientPermit { clients: Arc::clone(self), network })
    }

    /// How many connections a client has now.
    #[cfg(test)]
    pub(in crate::forward) fn connections(&self, client: IpAddr) -> u32 {
        let network = self.config.network(client);
        lock(self.shard(network)).get(&network).copied().unwrap_or(0)
    }

    /// How many client networks have connections now.
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
            // After a flood the memory goes back; a quarter, so that it is not taken again at once.
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
    fn a_limit_of_one_is_never_two_places() {
        loom::model(|| {
            let clients = ClientLimits::new(1).build();
            let ip = IpAddr::from([192, 0, 2, 1]);
            let other = {
                let clients = Arc::clone(&clients);
                thread::spawn(move || {
                    clients.enter(ip).map(|place| (clients.connections(ip), place))
                })
            };
            let mine = clients.enter(ip);
            if mine.is_some() {
                assert_eq!(clients.connections(ip), 1);
            }
            let theirs = other.join().expect("no panic");
            assert!(
                mine.is_some() != theirs.is_some(),
                "both are still held: one place, one owner"
            );
            drop((mine, theirs));
            assert_eq!(clients.networks(), 0);
        });
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
