//! The configuration of one virtual router on this machine.

use std::net::IpAddr;

use crate::vrrp::config::OWNER_PRIORITY;
use crate::vrrp::{AuthKey, ChecksumCoverage, ElectionConfig, TrackEffect};

use super::{VirtualAddress, VirtualRoute};

/// The configuration of one virtual router: its election, the interface, and the addresses and routes
/// that the master holds. [`Vrrp::start`](super::Vrrp::start) validates it.
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
/// let mut events = vrrp.events();
/// while let Some(event) = events.blocking_next() {
///     println!("{}", event?);
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
    pub(super) excluded_addresses: Vec<VirtualAddress>,
    pub(super) routes: Vec<VirtualRoute>,
    pub(super) peers: Vec<IpAddr>,
    pub(super) tracks: Vec<(String, TrackEffect)>,
    pub(super) keys: Vec<AuthKey>,
    pub(super) checksum: ChecksumCoverage,
    pub(super) virtual_mac: bool,
    pub(super) ignore_passwords: bool,
    pub(super) reset_connections: bool,
}

impl VirtualRouterConfig {
    /// Creates the configuration of a virtual router on this interface, with the name
    /// `VRID@interface`, such as `51@eth0`.
    pub fn new(interface: impl Into<String>, election: ElectionConfig) -> Self {
        let interface = interface.into();
        Self {
            name: format!("{}@{interface}", election.vrid),
            interface,
            election,
            addresses: Vec::new(),
            excluded_addresses: Vec::new(),
            routes: Vec::new(),
            peers: Vec::new(),
            tracks: Vec::new(),
            keys: Vec::new(),
            checksum: ChecksumCoverage::default(),
            virtual_mac: false,
            ignore_passwords: false,
            reset_connections: true,
        }
    }

    /// Sets the name in events and in the status. Default: `VRID@interface`.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Adds an address that the master holds; at most 255, of the source address's family. Over IPv6
    /// the first should be a link-local address (RFC 9568, section 5.2.9).
    ///
    /// The owner, a router of priority 255, always keeps its addresses: they are neither added nor
    /// removed.
    pub fn address(mut self, address: VirtualAddress) -> Self {
        self.addresses.push(address);
        self
    }

    /// Adds an address that the master holds, and that its advertisements do not name: further
    /// addresses beyond the 255 of a message, or those of the other family.
    pub fn excluded_address(mut self, address: VirtualAddress) -> Self {
        self.excluded_addresses.push(address);
        self
    }

    /// Tells whether a running virtual router can change to another configuration: the sockets, the
    /// interface and the owner's role stay.
    pub(super) fn is_same_router(&self, other: &Self) -> bool {
        let identity = |config: &Self| {
            let election = &config.election;
            let is_owner = election.priority == OWNER_PRIORITY;
            (election.vrid, election.source, election.version, is_owner, config.virtual_mac)
        };
        let has_v6 = |config: &Self| config.held_addresses().any(|address| address.ip().is_ipv6());
        (identity(self), &self.interface, &self.peers)
            == (identity(other), &other.interface, &other.peers)
            // A macvlan of an IPv4 router has IPv6 switched off.
            && (!self.virtual_mac || has_v6(self) == has_v6(other))
    }

    /// Returns the addresses that the master holds, advertised or not.
    pub(super) fn held_addresses(&self) -> impl Iterator<Item = VirtualAddress> + '_ {
        self.addresses.iter().chain(&self.excluded_addresses).copied()
    }

    /// Adds a route that the master holds.
    pub fn route(mut self, route: VirtualRoute) -> Self {
        self.routes.push(route);
        self
    }

    /// Adds a unicast peer. With any peer, advertisements are sent to the peers only, without
    /// multicast, and accepted from the peers only. For networks without multicast, such as those of
    /// clouds.
    pub fn peer(mut self, peer: IpAddr) -> Self {
        self.peers.push(peer);
        self
    }

    /// Adds a tracked item that the priority depends on. The item is up until
    /// [`Vrrp::set_track`](super::Vrrp::set_track) changes it.
    pub fn track(mut self, name: impl Into<String>, effect: TrackEffect) -> Self {
        self.tracks.push((name.into(), effect));
        self
    }

    /// Adds a key. With any key, advertisements are signed with the first key, and accepted only if
    /// they are signed with one of the keys.
    pub fn key(mut self, key: AuthKey) -> Self {
        self.keys.push(key);
        self
    }

    /// Sets which bytes the checksum of sent advertisements covers, in version 3 over IPv4; received
    /// advertisements may have either coverage. Default: keepalived's.
    pub fn checksum(self, checksum: ChecksumCoverage) -> Self {
        Self { checksum, ..self }
    }

    /// Sets whether the addresses have a virtual MAC, 00-00-5E-00-01-VRID or -02- for IPv6, on a
    /// macvlan (RFC 9568, section 7.3): clients then need not learn a new hardware address after a
    /// failover. A virtual MAC needs macvlan support in the kernel, and a switch that allows several
    /// hardware addresses on a port; clouds have no such switch. Default: `false`, the addresses are on
    /// the interface itself.
    ///
    /// While the virtual router runs, `arp_ignore` is 1 on the interface, so that the interface does
    /// not answer ARP for the addresses too.
    pub fn virtual_mac(self, virtual_mac: bool) -> Self {
        Self { virtual_mac, ..self }
    }

    /// Sets whether advertisements of version 2 with a password are accepted as if they had none.
    /// Default: `false`, they are refused. A password in plain text, which any host on the link can
    /// read, gives no security, and RFC 3768 removed it; the setting is for a peer that must send one.
    pub fn ignore_passwords(self, ignore_passwords: bool) -> Self {
        Self { ignore_passwords, ..self }
    }

    /// Sets whether a router that gives its addresses away resets their TCP connections, those of all
    /// processes of the network namespace: their clients connect anew at once, and wait for no answer
    /// that does not come. Needs `CONFIG_INET_DIAG_DESTROY` of the kernel; without it, a failure is
    /// reported, and the connections stay. Default: `true`.
    pub fn reset_connections(self, reset_connections: bool) -> Self {
        Self { reset_connections, ..self }
    }
}
