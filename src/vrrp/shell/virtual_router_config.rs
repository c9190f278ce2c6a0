//! A virtual router as an operator writes it down.

use std::net::IpAddr;

use crate::vrrp::{AuthKey, ChecksumCoverage, ElectionConfig, TrackEffect};

use super::{VirtualAddress, VirtualRoute};

/// One virtual router of this machine: its part in the election, the interface, and what the master
/// has. [`Vrrp::start`](super::Vrrp::start) runs it.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use lvs::vrrp::{ElectionConfig, VirtualRouterConfig, Vrrp};
///
/// let election = ElectionConfig::new(51, "10.88.0.1".parse()?)
///     .priority(150)
///     .interval(Duration::from_millis(100));
/// let router = VirtualRouterConfig::new("eth0", election).address("10.88.0.100/24".parse()?);
/// let vrrp = Vrrp::start([router])?;
/// for event in vrrp.events() {
///     println!("{event}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct VirtualRouterConfig {
    pub(super) name: String,
    pub(super) interface: String,
    pub(super) election: ElectionConfig,
    pub(super) addresses: Vec<VirtualAddress>,
    pub(super) routes: Vec<VirtualRoute>,
    pub(super) peers: Vec<IpAddr>,
    pub(super) tracks: Vec<(String, TrackEffect)>,
    pub(super) keys: Vec<AuthKey>,
    pub(super) checksum: ChecksumCoverage,
    pub(super) virtual_mac: bool,
    pub(super) ignore_passwords: bool,
}

impl VirtualRouterConfig {
    /// A virtual router on this interface. Its name is `VRID@interface`, such as `51@eth0`.
    pub fn new(interface: impl Into<String>, election: ElectionConfig) -> Self {
        let interface = interface.into();
        Self {
            name: format!("{}@{interface}", election.vrid),
            interface,
            election,
            addresses: Vec::new(),
            routes: Vec::new(),
            peers: Vec::new(),
            tracks: Vec::new(),
            keys: Vec::new(),
            checksum: ChecksumCoverage::default(),
            virtual_mac: false,
            ignore_passwords: false,
        }
    }

    /// What it is called in events and views.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// An address that the master has; up to 255 of the family that it advertises in. Over IPv6 the
    /// first should be a link-local one (RFC 9568, section 5.2.9).
    ///
    /// The owner of its addresses, who has priority 255, keeps them always: they are its own, and are
    /// neither put there nor taken away.
    pub fn address(mut self, address: VirtualAddress) -> Self {
        self.addresses.push(address);
        self
    }

    /// A route that the master has.
    pub fn route(mut self, route: VirtualRoute) -> Self {
        self.routes.push(route);
        self
    }

    /// Speaks to this router by unicast; with any such peer, to none by multicast, and hears none but
    /// those. For networks without multicast, such as those of clouds.
    pub fn peer(mut self, peer: IpAddr) -> Self {
        self.peers.push(peer);
        self
    }

    /// Something that its priority depends on; up, until [`Vrrp::set`](super::Vrrp::set) says
    /// otherwise.
    pub fn track(mut self, name: impl Into<String>, impact: TrackEffect) -> Self {
        self.tracks.push((name.into(), impact));
        self
    }

    /// Signs what it sends with this key, and believes nothing that is not signed by it or by another
    /// of the keys: the first is the one that it sends with.
    pub fn key(mut self, key: AuthKey) -> Self {
        self.keys.push(key);
        self
    }

    /// What its checksum covers, in version 3 over IPv4; it understands both. Default: as keepalived
    /// has it.
    pub fn checksum(self, checksum: ChecksumCoverage) -> Self {
        Self { checksum, ..self }
    }

    /// The addresses have a hardware address of their own, 00-00-5E-00-01-VRID or -02- for IPv6, on a
    /// macvlan (RFC 9568, section 7.3): clients need not learn another after a failover. It needs the
    /// kernel's macvlan, and a switch that lets a port have several addresses; clouds have none.
    /// Default: no, addresses are on the interface itself.
    ///
    /// While it runs, `arp_ignore` is 1 on the interface: it would answer for the addresses too.
    pub fn virtual_mac(self, virtual_mac: bool) -> Self {
        Self { virtual_mac, ..self }
    }

    /// Whether advertisements of version 2 with a password are believed as if they had none. Default:
    /// they are refused. A password in plain text, which anyone on the link can read, keeps nobody
    /// away, and RFC 3768 took it out; this is for a peer that must have one.
    pub fn ignore_passwords(self, ignore: bool) -> Self {
        Self { ignore_passwords: ignore, ..self }
    }
}
