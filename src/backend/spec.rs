//! The description of a backend that is to be added.

use std::net::SocketAddr;

use super::{BackendAdminState, BackendId, Health, Limits, Zone};

/// A builder for a backend that is to be inserted into a set.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::{Limits, Spec};
///
/// // An address is enough: it is also the name.
/// let address: SocketAddr = "10.0.0.1:80".parse()?;
/// let plain = Spec::from(address);
/// let tuned = Spec::new("web-1", address).weight(3).limits(Limits::new(1000)).tier(1);
/// assert_eq!((plain.weight, tuned.weight, tuned.id.as_str()), (1, 3, "web-1"));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
#[non_exhaustive]
pub struct Spec<T> {
    /// The name.
    pub id: BackendId,
    /// What the caller balances over.
    pub target: T,
    /// The weight.
    pub weight: u32,
    /// The tier for the `priority` scheduler.
    pub tier: u8,
    /// The zone, for the `priority` scheduler.
    pub zone: Option<Zone>,
    /// The connection limits.
    pub limits: Limits,
    /// The address, if it has one.
    pub address: Option<SocketAddr>,
    /// The operator's state.
    pub admin: BackendAdminState,
    /// The health until the first check.
    pub health: Health,
}

impl<T> Spec<T> {
    /// Makes a backend of weight 1, without limits, enabled and up.
    pub fn new(id: impl Into<BackendId>, target: T) -> Self {
        Self {
            id: id.into(),
            target,
            weight: 1,
            tier: 0,
            zone: None,
            limits: Limits::NONE,
            address: None,
            admin: BackendAdminState::Enabled,
            health: Health::Up,
        }
    }

    /// Sets the weight, from 0 (quiesced) to [`MAX_WEIGHT`](crate::backend::MAX_WEIGHT). Default: 1.
    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// Sets the tier for the `priority` scheduler; tier 0 serves first. Default: 0.
    pub fn tier(self, tier: u8) -> Self {
        Self { tier, ..self }
    }

    /// Sets the zone, which [`priority`](crate::scheduler::PriorityTiers::zone) may prefer. Default: none.
    pub fn zone(self, zone: Zone) -> Self {
        Self { zone: Some(zone), ..self }
    }

    /// Sets the connection limits. Default: none.
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Sets the address, by which the kernel's `mh` places a backend. Default: the target if it is an
    /// address, else none.
    pub fn address(self, address: SocketAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// Sets the operator's state. Default: enabled.
    pub fn admin(self, admin: BackendAdminState) -> Self {
        Self { admin, ..self }
    }

    /// Sets the health until the first check; a checked backend may start as down. Default: up.
    pub fn health(self, health: Health) -> Self {
        Self { health, ..self }
    }

    /// Replaces the target, as by a real server made of an address.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Spec<U> {
        let Self { id, target, weight, tier, zone, limits, address, admin, health } = self;
        Spec { id, target: change(target), weight, tier, zone, limits, address, admin, health }
    }
}

impl From<SocketAddr> for Spec<SocketAddr> {
    fn from(address: SocketAddr) -> Self {
        Self::new(address, address).address(address)
    }
}
