//! What a caller says of a backend when adding it.

use std::net::SocketAddr;

use super::{BackendAdminState, BackendId, Health, Limits};

/// A backend to be inserted into a set.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::{Limits, Spec};
///
/// // An address is enough: it is the name, too.
/// let address: SocketAddr = "10.0.0.1:80".parse()?;
/// let plain = Spec::from(address);
/// let tuned = Spec::new("web-1", address).weight(3).limits(Limits::max(1000)).tier(1);
/// # let _ = (plain, tuned);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Spec<T> {
    pub(crate) id: BackendId,
    pub(crate) target: T,
    pub(crate) weight: u32,
    pub(crate) tier: u8,
    pub(crate) limits: Limits,
    pub(crate) address: Option<SocketAddr>,
    pub(super) admin: BackendAdminState,
    pub(super) health: Health,
}

impl<T> Spec<T> {
    /// A backend of weight 1, without limits, enabled and up.
    pub fn new(id: impl Into<BackendId>, target: T) -> Self {
        Self {
            id: id.into(),
            target,
            weight: 1,
            tier: 0,
            limits: Limits::NONE,
            address: None,
            admin: BackendAdminState::Enabled,
            health: Health::Up,
        }
    }

    /// The weight, from 0 (quiesced) to [`MAX_WEIGHT`](crate::backend::MAX_WEIGHT). Default: 1.
    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// The priority tier for the `priority` scheduler; 0 is served first. Default: 0.
    pub fn tier(self, tier: u8) -> Self {
        Self { tier, ..self }
    }

    /// The connection limits. Default: none.
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The address: the kernel's `mh` places by it. Default: none, or the target if that is one.
    pub fn address(self, address: SocketAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// What the operator wants of it from the start. Default: enabled.
    pub fn admin(self, admin: BackendAdminState) -> Self {
        Self { admin, ..self }
    }

    /// What is known of its health at the start; a checked backend may begin as down. Default: up.
    pub fn health(self, health: Health) -> Self {
        Self { health, ..self }
    }

    /// Says the same of another target: a real server made of an address.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Spec<U> {
        let Self { id, target, weight, tier, limits, address, admin, health } = self;
        Spec { id, target: change(target), weight, tier, limits, address, admin, health }
    }
}

impl From<SocketAddr> for Spec<SocketAddr> {
    fn from(address: SocketAddr) -> Self {
        Self::new(address, address).address(address)
    }
}
