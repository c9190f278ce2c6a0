//! How many connections one client has at once.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

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
/// takes 29 to 57 bytes of table, as full as that is; a [`Place`] 32.
#[derive(Debug)]
pub(in crate::forward) struct PerClient {
    rule: Rule,
    keys: RandomState,
    shards: Box<[Mutex<HashMap<IpAddr, u32>>]>,
}

/// What a [`PerClient`] enforces.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(in crate::forward) struct Rule {
    limit: u32,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    capacity: usize,
}

/// One connection of one client; dropping it counts down.
#[derive(Debug)]
#[must_use = "dropping a place gives it back"]
pub(in crate::forward) struct Place {
    clients: Arc<PerClient>,
    network: IpAddr,
}

/// One for loom, which would explore each of them.
const SHARDS: usize = if cfg!(lvs_loom) { 1 } else { 64 };
const CAPACITY: usize = 1 << 20;
/// Tables below this size are never shrunk.
const SMALL: usize = 64;

impl Rule {
    /// The bits of an IPv4 client that count. Default: 32; larger values count as 32.
    #[cfg(test)]
    pub(in crate::forward) fn ipv4_prefix(self, bits: u8) -> Self {
        Self { ipv4_prefix: bits.min(32), ..self }
    }

    /// The bits of an IPv6 client that count. Default: 64; values above 128 count as 128.
    #[cfg(test)]
    pub(in crate::forward) fn ipv6_prefix(self, bits: u8) -> Self {
        Self { ipv6_prefix: bits.min(128), ..self }
    }

    /// The most networks in the table at once, to within a shard's share. Default: 1 048 576.
    #[cfg(test)]
    pub(in crate::forward) fn capacity(self, networks: usize) -> Self {
        Self { capacity: networks, ..self }
    }

    /// Makes the table.
    pub(in crate::forward) fn build(self) -> Arc<PerClient> {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::default())).collect();
        Arc::new(PerClient { rule: self, keys: RandomState::new(), shards })
    }

    fn network(&self, client: IpAddr) -> IpAddr {
        match client.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.ipv4_prefix)).unwrap_or(0);
                Ipv4Addr::from(u32::from(ip) & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.ipv6_prefix)).unwrap_or(0);
                Ipv6Addr::from(u128::from(ip) & mask).into()
            }
        }
    }
}

impl PerClient {
    /// At most so many connections for each client; 0 counts as 1.
    #[expect(clippy::new_ret_no_self, reason = "the rule is the way in")]
    pub(in crate::forward) const fn new(limit: u32) -> Rule {
        let limit = if limit == 0 { 1 } else { limit };
        Rule { limit, ipv4_prefix: 32, ipv6_prefix: 64, capacity: CAPACITY }
    }

    /// Counts a connection of a client; `None` if it has its number already, or if the table is
    /// full.
    pub(in crate::forward) fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let network = self.rule.network(client);
        let mut shard = lock(self.shard(network));
        let full = shard.len() >= self.rule.capacity.div_ceil(SHARDS);
        match shard.entry(network) {
            Entry::Occupied(known) if *known.get() >= self.rule.limit => return None,
            Entry::Occupied(known) => *known.into_mut() += 1,
            Entry::Vacant(_) if full => return None,
            Entry::Vacant(new) => {
                new.insert(1);
            }
        }
        Some(Place { clients: Arc::clone(self), network })
    }

    /// How many connections a client has now.
    #[cfg(test)]
    pub(in crate::forward) fn connections(&self, client: IpAddr) -> u32 {
        let network = self.rule.network(client);
        lock(self.shard(network)).get(&network).copied().unwrap_or(0)
    }

    /// How many client networks have connections now.
    #[cfg(test)]
    pub(in crate::forward) fn networks(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn leave(&self, network: IpAddr) {
        let mut shard = lock(self.shard(network));
        let Some(connections) = shard.get_mut(&network) else { return };
        *connections -= 1;
        if *connections == 0 {
            shard.remove(&network);
            // After a flood the memory goes back; a quarter, so that it is not taken again at once.
            if shard.capacity() > SMALL && shard.len() < shard.capacity() / 4 {
                let keep = shard.len() * 2;
                shard.shrink_to(keep);
            }
        }
    }

    fn shard(&self, network: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        &self.shards[self.keys.hash_one(network) as usize % SHARDS]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.leave(self.network);
    }
}

#[cfg(all(test, lvs_loom))]
mod model {
    use loom::thread;

    use super::*;

    /// `RUSTFLAGS="--cfg lvs_loom" cargo test --release --lib per_client`
    #[test]
    fn a_limit_of_one_is_never_two_places() {
        loom::model(|| {
            let clients = PerClient::new(1).build();
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
