//! One virtual router on this machine: what is sent for it, and what it has while it is master.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::announcer::AddressAnnouncer;
use super::netlink::{NetworkInterface, RtnetlinkSocket};
use super::address_set::VirtualAddressSet;
use super::socket::AdvertSocket;
use super::status::AdvertCounters;
use super::{VirtualRouterConfig, VrrpEventKind, VrrpStartError};
use crate::vrrp::{
    Advert, AdvertAuthError, AdvertError, AdvertSigner, AdvertVerifier, IpHeaderInfo,
    OutgoingAdvert, ReceivedAdvert, TrackedItems, VrrpState,
};

/// The tracks that are its own: the link, the address that it sends from, and the virtual addresses,
/// which the system may refuse.
const LINK_TRACK: &str = "link";
const SOURCE_TRACK: &str = "source address";
const ADDRESSES_TRACK: &str = "virtual addresses";
/// How long before it tries again to have the addresses.
const ACQUIRE_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often the same complaint is repeated.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// One virtual router, but for the election.
#[derive(Debug)]
pub(super) struct VrrpInstance {
    pub(super) config: VirtualRouterConfig,
    pub(super) socket: AdvertSocket,
    pub(super) announcer: AddressAnnouncer,
    pub(super) address_set: VirtualAddressSet,
    pub(super) tracks: TrackedItems,
    pub(super) adverts: AdvertCounters,
    pub(super) transitions: BTreeMap<VrrpState, u64>,
    pub(super) state_since: Instant,
    pub(super) last_advert: Option<ReceivedAdvert>,
    /// When to try again to have the addresses.
    pub(super) retry_at: Option<Instant>,
    addresses: Vec<IpAddr>,
    signer: Option<AdvertSigner>,
    verifier: Option<AdvertVerifier>,
    /// When each complaint was last made; there are as many as there are things to do.
    last_reports: BTreeMap<String, Instant>,
    pub(super) pending_events: Vec<VrrpEventKind>,
}

impl VrrpInstance {
    /// Opens what it needs, and makes sure that the addresses are not there.
    pub(super) fn open(
        asked: VirtualRouterConfig,
        netlink: &mut RtnetlinkSocket,
        now: Instant,
    ) -> Result<Self, VrrpStartError> {
        let base = ethernet_interface(&asked.interface, netlink)?;
        let place = VirtualAddressSet::open(&asked, base, netlink)?;
        let source = asked.election.source;
        let socket = AdvertSocket::open(
            &asked.interface,
            place.advert_interface(&asked),
            source,
            &asked.peers,
        )?;
        let announcer =
            AddressAnnouncer::open(place.device_name(), place.device_index(), place.device_mac())
                .map_err(VrrpStartError::wrap_io("open a packet socket"))?;
        let mut tracks = TrackedItems::new(asked.election.priority);
        for name in [LINK_TRACK, SOURCE_TRACK, ADDRESSES_TRACK] {
            tracks.insert(name, crate::vrrp::TrackEffect::Fault, true);
        }
        for (name, impact) in &asked.tracks {
            tracks.insert(name.clone(), *impact, true);
        }
        let keys = &asked.keys;
        let window = (asked.election.interval * 3).max(Duration::from_secs(5));
        Ok(Self {
            socket,
            announcer,
            address_set: place,
            tracks,
            adverts: AdvertCounters::default(),
            transitions: BTreeMap::new(),
            state_since: now,
            last_advert: None,
            retry_at: None,
            addresses: asked.addresses.iter().map(super::VirtualAddress::ip).collect(),
            signer: keys.first().cloned().map(AdvertSigner::new),
            verifier: (!keys.is_empty()).then(|| AdvertVerifier::new(keys.clone()).window(window)),
            last_reports: BTreeMap::new(),
            pending_events: Vec::new(),
            config: asked,
        })
    }

    /// Sends an advertisement of this priority to all that should hear it.
    pub(super) fn send_advert(&mut self, priority: u8, now: Instant) {
        let election = &self.config.election;
        let message = OutgoingAdvert {
            version: election.version,
            vrid: election.vrid,
            priority,
            interval: election.interval,
            addresses: &self.addresses,
        };
        let (source, checksum) = (election.source, self.config.checksum);
        let signer = &mut self.signer;
        let sent = self.socket.send(|to| {
            // It was written once already, when all began.
            let mut bytes = message.encode(source, to, checksum).unwrap_or_default();
            if let Some(signer) = signer {
                signer.sign(&mut bytes, source, to, unix_time());
            }
            bytes
        });
        match sent {
            Ok(()) => self.adverts.sent += 1,
            Err(error) => {
                self.adverts.unsent += 1;
                self.report_failure("send an advertisement", &error, now);
            }
        }
    }

    /// Takes the addresses; whoever cannot have them must not be master.
    pub(super) fn acquire_addresses(&mut self, netlink: &mut RtnetlinkSocket, now: Instant) {
        if let Err((what, error)) = self.address_set.acquire(netlink, now) {
            self.report_failure(&what, &error, now);
            self.retry_at = Some(now + ACQUIRE_RETRY_INTERVAL);
            let _ = self.tracks.set(ADDRESSES_TRACK, false);
        }
    }

    /// Tries again to have them, when it is elected.
    pub(super) fn retry_acquire(&mut self) {
        self.retry_at = None;
        let _ = self.tracks.set(ADDRESSES_TRACK, true);
    }

    /// Gives the addresses up.
    pub(super) fn release_addresses(&mut self, netlink: &mut RtnetlinkSocket, now: Instant) {
        for (what, error) in self.address_set.release(netlink) {
            self.report_failure(&what, &error, now);
        }
    }

    /// Lets the addresses be there for another while.
    pub(super) fn renew_addresses(&mut self, netlink: &mut RtnetlinkSocket, now: Instant) {
        if let Err((what, error)) = self.address_set.renew(netlink, now) {
            self.report_failure(&what, &error, now);
        }
    }

    /// Tells the link where the addresses are.
    pub(super) fn announce_addresses(&mut self, now: Instant) {
        for place in 0..self.addresses.len() {
            let address = self.addresses[place];
            if let Err(error) = self.announcer.announce(address) {
                self.report_failure(&format!("announce {address}"), &error, now);
            }
        }
        self.adverts.announced += 1;
    }

    /// What has come for this virtual router, and is believed.
    pub(super) fn receive_advert(&mut self, now: Instant) -> Option<ReceivedAdvert> {
        // Bounded: whoever floods the link is read in turns.
        for _ in 0..64 {
            let (envelope, bytes) = match self.socket.receive() {
                Ok(received) => received?,
                Err(error) => {
                    self.report_failure("receive", &error, now);
                    return None;
                }
            };
            let bytes = bytes.to_vec();
            if let Some(heard) = self.accept_advert(&envelope, &bytes, now) {
                return Some(heard);
            }
        }
        None
    }

    fn accept_advert(
        &mut self,
        envelope: &IpHeaderInfo,
        bytes: &[u8],
        now: Instant,
    ) -> Option<ReceivedAdvert> {
        let source = envelope.source;
        // Other virtual routers live on the same link.
        if source == self.socket.source() || bytes.get(1) != Some(&self.config.election.vrid) {
            return None;
        }
        let refusal = match self.validate_advert(envelope, bytes, now) {
            Ok(heard) => {
                self.adverts.received += 1;
                self.last_advert = Some(heard);
                return Some(heard);
            }
            Err(refusal) => refusal,
        };
        *self.adverts.refused.entry(refusal.label()).or_default() += 1;
        if self.is_report_due(refusal.label(), now) {
            self.pending_events
                .push(VrrpEventKind::AdvertRefused { source, why: refusal.to_string() });
        }
        None
    }

    fn validate_advert(
        &mut self,
        envelope: &IpHeaderInfo,
        bytes: &[u8],
        now: Instant,
    ) -> Result<ReceivedAdvert, AdvertRefusal> {
        let source = envelope.source;
        let mut envelope = *envelope;
        if !self.config.peers.is_empty() {
            if !self.config.peers.contains(&source) {
                return Err(AdvertRefusal::UnknownPeer);
            }
            envelope.ttl = None;
        }
        let advert = Advert::parse(bytes, &envelope)?;
        if advert.version() != self.config.election.version {
            return Err(AdvertRefusal::VersionMismatch);
        }
        let has_password = advert.authentication().is_some_and(|(kind, _)| kind != 0);
        if has_password && !self.config.ignore_passwords {
            return Err(AdvertRefusal::Password);
        }
        if let Some(verifier) = &mut self.verifier {
            verifier.verify(&advert, source, unix_time())?;
        }
        self.compare_addresses(&advert, source, now);
        Ok(ReceivedAdvert::new(&advert, source))
    }

    /// The others should have the same addresses; they take part all the same (RFC 9568, 7.1).
    fn compare_addresses(&mut self, advert: &Advert<'_>, source: IpAddr, now: Instant) {
        let ours = &self.addresses;
        let is_same = advert.addresses().count() == ours.len()
            && advert.addresses().all(|address| ours.contains(&address));
        if !is_same {
            self.adverts.mismatched += 1;
            if self.is_report_due("mismatch", now) {
                let addresses = advert.addresses().collect();
                self.pending_events.push(VrrpEventKind::AddressMismatch { source, addresses });
            }
        }
    }

    /// Hears who else has the addresses; of interest to a master.
    pub(super) fn check_conflicts(&mut self, is_master: bool, now: Instant) {
        for _ in 0..64 {
            let Some((address, mac)) = self.announcer.receive_arp_claim() else { return };
            if is_master && self.addresses.contains(&address.into()) {
                self.adverts.conflicts += 1;
                if self.is_report_due("conflict", now) {
                    self.pending_events.push(VrrpEventKind::AddressConflict { address, mac });
                }
            }
        }
    }

    /// Looks whether the link is up, and the address there that it sends from.
    pub(super) fn refresh_own_tracks(&mut self, netlink: &mut RtnetlinkSocket, now: Instant) {
        match netlink.interface(&self.config.interface) {
            Ok(link) => {
                let is_up =
                    link.is_some_and(|it| it.is_up && it.index == self.address_set.parent_index());
                self.set_track(LINK_TRACK, is_up);
            }
            Err(error) => self.report_failure("look at the interface", &error, now),
        }
        match netlink.addresses() {
            Ok(held) => {
                let source = self.config.election.source;
                self.set_track(SOURCE_TRACK, held.iter().any(|held| held.address.ip() == source));
            }
            Err(error) => self.report_failure("look at the addresses", &error, now),
        }
    }

    /// Says that something is up, or down; `false` if it is not tracked.
    pub(super) fn set_track(&mut self, name: &str, is_up: bool) -> bool {
        match self.tracks.set(name, is_up) {
            Ok(true) => {
                self.pending_events
                    .push(VrrpEventKind::TrackChanged { name: name.to_owned(), is_up });
                true
            }
            Ok(false) => true,
            Err(_) => false,
        }
    }

    fn report_failure(&mut self, what: &str, error: &io::Error, now: Instant) {
        if self.is_report_due(what, now) {
            self.pending_events.push(VrrpEventKind::OperationFailed {
                what: what.to_owned(),
                error: error.to_string(),
            });
        }
    }

    fn is_report_due(&mut self, what: &str, now: Instant) -> bool {
        let last = self.last_reports.get(what).copied();
        let is_news =
            last.is_none_or(|last| now.saturating_duration_since(last) >= REPORT_INTERVAL);
        if is_news {
            self.last_reports.insert(what.to_owned(), now);
        }
        is_news
    }
}

/// The interface of this name, which must be an Ethernet.
pub(super) fn ethernet_interface(
    name: &str,
    netlink: &mut RtnetlinkSocket,
) -> Result<NetworkInterface, VrrpStartError> {
    let link = netlink.interface(name).map_err(VrrpStartError::wrap_io("look at the interface"))?;
    let link = link.ok_or_else(|| VrrpStartError::UnknownInterface(name.to_owned()))?;
    if link.mac.len() != 6 {
        return Err(VrrpStartError::NotEthernet(name.to_owned()));
    }
    Ok(link)
}

/// The address of an interface that a router sends from, if it is not told.
pub(super) fn default_source(
    interface: &str,
    is_v6: bool,
    netlink: &mut RtnetlinkSocket,
) -> Result<IpAddr, VrrpStartError> {
    let link = ethernet_interface(interface, netlink)?;
    let held = netlink.addresses().map_err(VrrpStartError::wrap_io("look at the addresses"))?;
    let will_do = |address: IpAddr| match address {
        IpAddr::V4(_) => !is_v6,
        IpAddr::V6(address) => is_v6 && address.is_unicast_link_local(),
    };
    // Those with a lifetime may be virtual ones of a predecessor; if need be, they will do.
    let here = || held.iter().filter(|it| it.index == link.index && will_do(it.address.ip()));
    let found = here().find(|it| it.lifetime.is_none()).or_else(|| here().next());
    found.map(|it| it.address.ip()).ok_or_else(|| VrrpStartError::NoSource {
        interface: interface.to_owned(),
        family: if is_v6 { "link-local IPv6" } else { "IPv4" },
    })
}

/// Why an advertisement is not believed.
#[derive(Debug, thiserror::Error)]
enum AdvertRefusal {
    #[error(transparent)]
    Advert(#[from] AdvertError),
    #[error(transparent)]
    Auth(#[from] AdvertAuthError),
    #[error("it is of another version of the protocol")]
    VersionMismatch,
    #[error("it has a password, which proves nothing")]
    Password,
    #[error("it is no peer")]
    UnknownPeer,
}

impl AdvertRefusal {
    /// A label for counts.
    const fn label(&self) -> &'static str {
        match self {
            Self::Advert(AdvertError::InvalidTtl(_)) => "ttl",
            Self::Advert(AdvertError::Checksum) => "checksum",
            Self::Advert(AdvertError::Version(_)) | Self::VersionMismatch => "version",
            Self::Advert(_) => "malformed",
            Self::Auth(AdvertAuthError::Unsigned) => "unsigned",
            Self::Auth(AdvertAuthError::Stale(_)) => "stale",
            Self::Auth(AdvertAuthError::Replayed) => "replayed",
            Self::Auth(_) => "forged",
            Self::Password => "password",
            Self::UnknownPeer => "stranger",
        }
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
