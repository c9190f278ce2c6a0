//! Persistence: a client returns to its backend for a time, as in IPVS.
//!
//! A *template* holds the client's network, or [another key](Persistence::pick_by_key), and the backend
//! that the client got. A connection with a
//! valid template goes to that backend without the scheduler, whatever its weight and its connection
//! limit. Any other connection is scheduled and adds a template. A template that is not used for the
//! timeout expires.
//!
//! Differences from the kernel, on purpose: clients never return to a backend that is disabled or down,
//! and to a draining one only [if configured](PersistenceBuilder::draining) (IPVS has no such states).
//! [A setting](PersistenceBuilder::quiesced) says what weight 0 does (the kernel's
//! `expire_quiescent_template`). The table is bounded. A template expires one timeout after the last
//! connection was made; the kernel's lives as long as a connection of it.
//!
//! # Cost
//! Each connection with a template takes the lock of one of sixteen shards, one hash look-up, and a
//! binary search of the member list.

mod builder;
mod saved_template;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

#[cfg(feature = "forward")]
pub(crate) use self::builder::mask_to_prefix;
pub use self::builder::{AffinityPolicy, PersistenceBuilder};
pub use self::saved_template::SavedTemplate;
use super::{Balancer, Lease, PickError, with_thread_rng};
use crate::scheduler::{Flow, Rng};
use crate::setting::SettingError;
use crate::sync::{Mutex, lock};

/// A table of templates over a [`Balancer`].
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use std::time::{Duration, Instant};
/// use lvs::balancer::Persistence;
/// use lvs::scheduler::RoundRobin;
/// use lvs::{BackendSet, Balancer, Flow};
///
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, RoundRobin::new())?;
/// set.insert(SocketAddr::from(([10, 0, 0, 1], 80)))?;
/// set.insert(SocketAddr::from(([10, 0, 0, 2], 80)))?;
///
/// let sticky = Persistence::builder(Duration::from_secs(300)).ipv4_prefix(24).build(balancer)?;
/// let (one, other): (SocketAddr, SocketAddr) = ("192.0.2.7:5000".parse()?, "192.0.2.9:6000".parse()?);
/// let a = sticky.pick(&Flow::from(one), Instant::now())?;
/// let b = sticky.pick(&Flow::from(other), Instant::now())?;
/// assert_eq!(a.id(), b.id(), "one network, one server");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Groups of services
/// Services that share a table are a group. Any number of threads use a table by reference.
///
/// | IPVS | here |
/// |---|---|
/// | `-t VIP:80 -p`, `-t VIP:443 -p`: each port by itself | a table for each listener |
/// | `-t VIP:0 -p`: all ports of an address | one table, in an `Arc`, for the listeners of these ports |
/// | `-f MARK -p`: any addresses, ports and protocols | one table, in an `Arc`, for all these listeners |
///
/// In both kinds of group a backend's port is 0 in IPVS, which stands for the port that the client
/// connected to. The same works here:
/// ```
/// use std::net::SocketAddr;
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use lvs::balancer::Persistence;
/// use lvs::scheduler::RoundRobin;
/// use lvs::{BackendSet, Balancer, Flow, PickError};
///
/// let set = BackendSet::new();
/// set.insert(SocketAddr::from(([10, 0, 0, 1], 0)))?;
/// set.insert(SocketAddr::from(([10, 0, 0, 2], 0)))?;
/// let balancer = Balancer::new(&set, RoundRobin::new())?;
/// let group = Arc::new(Persistence::builder(Duration::from_secs(300)).build(balancer)?);
///
/// // The listeners of both ports do this with a connection.
/// let connect = |client: &str, local: &str, now: Instant| -> Result<SocketAddr, PickError> {
///     let (client, local): (SocketAddr, SocketAddr) =
///         (client.parse().expect("an address"), local.parse().expect("an address"));
///     let lease = group.pick(&Flow::from(client).destination(local), now)?;
///     let mut target = *lease.target();
///     if target.port() == 0 {
///         target.set_port(local.port());
///     }
///     Ok(target)
/// };
/// let now = Instant::now();
/// let plain = connect("192.0.2.7:5000", "198.51.100.1:80", now)?;
/// let secure = connect("192.0.2.7:5001", "198.51.100.1:443", now)?;
/// assert_eq!(plain.ip(), secure.ip(), "both ports go to one server");
/// assert_eq!((plain.port(), secure.port()), (80, 443));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Persistence<T> {
    settings: PersistenceBuilder,
    balancer: Balancer<T>,
    shards: Box<[Mutex<TemplateShard>]>,
}

#[derive(Debug, Default)]
struct TemplateShard {
    templates: HashMap<TemplateKey, PersistenceTemplate>,
    /// The time of the next sweep for expired templates.
    sweep_at: Option<Instant>,
}

/// What the connections of a template have in common.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum TemplateKey {
    /// The client's network.
    Network(IpAddr),
    /// A hash of whatever the caller goes by.
    Hash(u64),
}

#[derive(Clone, Copy, Debug)]
struct PersistenceTemplate {
    serial: u64,
    expires: Instant,
}

const TEMPLATE_SHARDS: usize = 16;

impl Persistence<()> {
    /// Makes a builder of persistence that ends `timeout` after its last use, for single clients (/32
    /// and /128). The timeout is at most 2^32 s (136 years).
    // On `Persistence<()>`, so that the name can be written without its type parameter.
    pub const fn builder(timeout: Duration) -> PersistenceBuilder {
        PersistenceBuilder::new(timeout)
    }
}

impl PersistenceBuilder {
    /// Checks the settings, and makes the table over a balancer.
    ///
    /// # Errors
    /// [`SettingError`] names the first setting that is out of its range.
    pub fn build<T>(self, balancer: Balancer<T>) -> Result<Persistence<T>, SettingError> {
        self.validate()?;
        let shards = (0..TEMPLATE_SHARDS).map(|_| Mutex::new(TemplateShard::default())).collect();
        Ok(Persistence { settings: self, balancer, shards })
    }
}

impl<T> Persistence<T> {
    /// Returns the backend of the client's template, or schedules one and adds a template. The client is
    /// the [source](Flow::source) of the flow; a flow without one is scheduled, and adds no template.
    ///
    /// A backend that the flow has [tried](Flow::excluding) is not chosen again. The scheduler sees `now`
    /// as the [time](Flow::time) of the flow.
    ///
    /// # Errors
    /// As [`Balancer::pick`].
    pub fn pick(&self, flow: &Flow, now: Instant) -> Result<Lease<T>, PickError> {
        with_thread_rng(|rng| self.pick_with_rng(flow, rng, now))
    }

    /// Picks as [`pick`](Self::pick) does, with the caller's random generator.
    ///
    /// # Errors
    /// As [`Balancer::pick`].
    pub fn pick_with_rng(
        &self,
        flow: &Flow,
        rng: &mut Rng,
        now: Instant,
    ) -> Result<Lease<T>, PickError> {
        let flow = flow.clone().time(now);
        let Some(client) = flow.view().source() else {
            return self.balancer.pick_with_rng(&flow, rng);
        };
        let network = self.settings.client_network(client.ip());
        self.pick_by_template(TemplateKey::Network(network), &flow, rng, now)
    }

    /// Returns the backend of `key`'s template, or schedules one and adds a template.
    ///
    /// For clients that something else than their address tells apart: a session, a user, a tenant. Make
    /// the key by [`hash_bytes`](crate::scheduler::hash_bytes). The scheduler sees `flow` as it is, with
    /// the time; give it the [key](Flow::key) as well if a scheduler that hashes shall choose by it.
    /// Templates of keys and of networks share the capacity, and are apart otherwise;
    /// [`export`](Self::export) has those of networks only.
    ///
    /// # Errors
    /// As [`Balancer::pick`].
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    /// use lvs::balancer::Persistence;
    /// use lvs::scheduler::{RoundRobin, hash_bytes};
    /// use lvs::{BackendSet, Balancer, Flow, Spec};
    ///
    /// let set = BackendSet::new();
    /// for name in ["a", "b"] {
    ///     set.insert(Spec::new(name, ()))?;
    /// }
    /// let balancer = Balancer::new(&set, RoundRobin::new())?;
    /// let sticky = Persistence::builder(Duration::from_secs(300)).build(balancer)?;
    /// let pick = |session: &str| {
    ///     sticky.pick_by_key(hash_bytes(session.as_bytes(), 0), &Flow::new(), Instant::now())
    /// };
    /// let (first, again, other) = (pick("ann")?, pick("ann")?, pick("bob")?);
    /// assert_eq!(first.id(), again.id());
    /// assert_ne!(first.id(), other.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pick_by_key(&self, key: u64, flow: &Flow, now: Instant) -> Result<Lease<T>, PickError> {
        let flow = flow.clone().time(now);
        with_thread_rng(|rng| self.pick_by_template(TemplateKey::Hash(key), &flow, rng, now))
    }

    fn pick_by_template(
        &self,
        key: TemplateKey,
        flow: &Flow,
        rng: &mut Rng,
        now: Instant,
    ) -> Result<Lease<T>, PickError> {
        let mut shard = lock(self.shard(key));
        shard.remove_expired(now, self.settings.timeout);
        if let Some(template) = shard.templates.get_mut(&key).filter(|t| t.expires > now) {
            let mut affinity = AffinityPolicy::End;
            let follows = |state| {
                affinity = self.settings.affinity_policy(state);
                affinity != AffinityPolicy::End
            };
            if !flow.view().has_tried(template.serial)
                && let Some(lease) =
                    self.balancer.published_plane.lease_if(template.serial, follows)
            {
                if affinity == AffinityPolicy::Keep {
                    template.expires = now + self.settings.timeout;
                }
                return Ok(lease);
            }
        }
        let lease = self.balancer.pick_with_rng(flow, rng)?;
        let template = PersistenceTemplate {
            serial: lease.backend().account().serial(),
            expires: now + self.settings.timeout,
        };
        shard.insert(key, template, self.settings.capacity);
        Ok(lease)
    }

    /// Returns the number of templates, including expired ones that were not swept yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).templates.len()).sum()
    }

    /// Tells whether there are no templates.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the balancer below.
    #[must_use]
    pub fn balancer(&self) -> &Balancer<T> {
        &self.balancer
    }

    fn shard(&self, key: TemplateKey) -> &Mutex<TemplateShard> {
        let hash = match key {
            TemplateKey::Network(ip) => Flow::from(SocketAddr::new(ip, 0)).view().key(),
            TemplateKey::Hash(hash) => Some(hash),
        };
        &self.shards[hash.unwrap_or(0) as usize % TEMPLATE_SHARDS]
    }
}

impl TemplateShard {
    /// Adds a template, if there is room; the capacity is that of the whole table.
    fn insert(&mut self, key: TemplateKey, template: PersistenceTemplate, capacity: usize) -> bool {
        let full = self.templates.len() >= capacity.div_ceil(TEMPLATE_SHARDS);
        let fits = !full || self.templates.contains_key(&key);
        if fits {
            self.templates.insert(key, template);
        }
        fits
    }

    /// Removes expired templates, at most once a timeout.
    fn remove_expired(&mut self, now: Instant, timeout: Duration) {
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.templates.retain(|_, template| template.expires > now);
            self.sweep_at = now.checked_add(timeout.max(Duration::from_secs(1)));
        }
    }
}

impl<T> fmt::Debug for Persistence<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persistence")
            .field("settings", &self.settings)
            .field("len", &self.len())
            .finish()
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::backend::BackendSet;
    use crate::scheduler::RoundRobin;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let builder = Persistence::builder(Duration::from_secs(1));
        let longer =
            Persistence::builder(builder::MAX_PERSISTENCE_TIMEOUT + Duration::from_secs(1));
        for (builder, expected) in [
            (longer, "timeout is 4294967297s, must be at most 4294967296s"),
            (builder.ipv4_prefix(33), "ipv4_prefix is 33, must be from 0 to 32"),
            (builder.ipv6_prefix(129), "ipv6_prefix is 129, must be from 0 to 128"),
        ] {
            let balancer =
                Balancer::new(&BackendSet::<u8>::new(), RoundRobin::new()).expect("an empty set");
            assert_eq!(builder.build(balancer).expect_err(expected).to_string(), expected);
        }
    }
}
