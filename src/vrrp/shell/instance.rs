//! One virtual router on this machine: its sockets, its addresses, its tracked items and counters. The
//! election itself is in the thread's [`VrrpSyncGroup`](crate::vrrp::VrrpSyncGroup).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::address_set::{AddressSetError, VirtualAddressSet};
use super::announcer::AddressAnnouncer;
use super::connection_reset::reset_connections;
use super::netlink::ethernet_interface;
use super::socket::AdvertSocket;
use super::status::AdvertCounters;
use super::{VirtualRouterConfig, VrrpEventKind, VrrpStartError};
use crate::rtnetlink::RtnetlinkSocket;
use crate::vrrp::tracked_items::{ADDRESSES_TRACK, BUILT_IN_TRACKS, LINK_TRACK, SOURCE_TRACK};
use crate::vrrp::{
    Advert, AdvertAuthError, AdvertError, AdvertSigner, AdvertVerifier, IpHeaderInfo,
    OutgoingAdvert, ReceivedAdvert, TrackEffect, TrackedItems, VrrpState, VrrpVersion,
};

/// How long after a failure the addresses are acquired again.
const ACQUIRE_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often the same failure is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// One virtual router without its election.
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
    /// When to acquire the addresses again, after a failure.
    pub(super) retry_at: Option<Instant>,
    /// The addresses that advertisements name.
    addresses: Vec<IpAddr>,
    /// Those, and the excluded ones.
    held_addresses: Vec<IpAddr>,
    signer: Option<AdvertSigner>,
    verifier: Option<AdvertVerifier>,
    /// When each failure was last reported; bounded by the number of operations and reasons.
    last_reports: BTreeMap<String, Instant>,
    pub(super) pending_events: Vec<VrrpEventKind>,
}

impl VrrpInstance {
    /// Opens the sockets, and checks that the machine does not have the addresses.
    pub(super) fn open(
        config: VirtualRouterConfig,
        netlink: &mut RtnetlinkSocket,
        now: Instant,
    ) -> Result<Self, VrrpStartError> {
        let parent = ethernet_interface(&config.interface, netlink)?;
        let address_set = VirtualAddressSet::open(&config, parent, netlink)?;
        let source = config.election.source;
        let socket = AdvertSocket::open(
            &config.interface,
            address_set.advert_interface(&config),
            source,
            &config.peers,
        )?;
        let announcer = AddressAnnouncer::open(
            address_set.device_name(),
            address_set.device_index(),
            address_set.device_mac(),
        )
        .map_err(VrrpStartError::wrap_io("open a packet socket"))?;
        let mut tracks = TrackedItems::new(config.election.priority);
        for name in BUILT_IN_TRACKS {
            tracks.insert(name, TrackEffect::Fault, true);
        }
        for (name, effect) in &config.tracks {
            tracks.insert(name.clone(), *effect, true);
        }
        let (signer, verifier) = signature_keys(&config);
        Ok(Self {
            socket,
            announcer,
            address_set,
            tracks,
            adverts: AdvertCounters::default(),
            transitions: BTreeMap::new(),
            state_since: now,
            last_advert: None,
            retry_at: None,
            addresses: config.addresses.iter().map(super::VirtualAddress::ip).collect(),
            held_addresses: config.held_addresses().map(|address| address.ip()).collect(),
            signer,
            verifier,
            last_reports: BTreeMap::new(),
            pending_events: Vec::new(),
            config,
        })
    }

    /// Changes to another configuration of the same router: see
    /// [`VirtualRouterConfig::is_same_router`]. `is_master` tells whether the new addresses are
    /// announced.
    pub(super) fn reconfigure(
        &mut self,
        config: VirtualRouterConfig,
        is_master: bool,
        netlink: &mut RtnetlinkSocket,
        now: Instant,
    ) {
        self.tracks.set_base_priority(config.election.priority);
        for (name, _) in &self.config.tracks {
            if !config.tracks.iter().any(|(kept, _)| kept == name) {
                self.tracks.remove(name);
            }
        }
        for (name, effect) in &config.tracks {
            let is_up = self.tracks.is_up(name).unwrap_or(true);
            self.tracks.insert(name.clone(), *effect, is_up);
        }
        for AddressSetError { operation, source } in
            self.address_set.reconfigure(&config, netlink, now)
        {
            self.report_failure(&operation, &source, now);
        }
        let is_same_key = config.keys.len() == self.config.keys.len()
            && config.keys.iter().zip(&self.config.keys).all(|(new, old)| new.is_same(old));
        if !is_same_key {
            (self.signer, self.verifier) = signature_keys(&config);
        }
        let old = std::mem::replace(&mut self.config, config);
        self.addresses = self.config.addresses.iter().map(super::VirtualAddress::ip).collect();
        self.held_addresses = self.config.held_addresses().map(|address| address.ip()).collect();
        let had = |ip: &IpAddr| old.held_addresses().any(|address| address.ip() == *ip);
        if is_master && !self.held_addresses.iter().all(had) {
            self.announce_addresses(now);
        }
    }

    /// Sends an advertisement of this priority to the multicast group or the peers.
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
        let sent = self.socket.send(|destination| {
            // `Vrrp::start` has encoded the same message, so that encoding does not fail here.
            let mut bytes = message.encode(source, destination, checksum).unwrap_or_default();
            if let Some(signer) = signer {
                signer.sign(&mut bytes, source, destination, unix_time());
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

    /// Adds the addresses to this machine. After a failure the router cannot be master until the next
    /// attempt.
    pub(super) fn acquire_addresses(&mut self, netlink: &mut RtnetlinkSocket, now: Instant) {
        if let Err(AddressSetError { operation, source }) = self.address_set.acquire(netlink, now) {
            self.report_failure(&operation, &source, now);
            self.retry_at = Some(now + ACQUIRE_RETRY_INTERVAL);
            let _ = self.tracks.set(ADDRESSES_TRACK, false);
        }
    }

    /// Allows the next attempt: the addresses are acquired again when this router is elected.
    pub(super) fn retry_acquire(&mut self) {
        self.retry_at = None;
        let _ = self.tracks.set(ADDRESSES_TRACK, true);
    }

    /// Resets the connections of the addresses, and removes the addresses from this machine.
    pub(super) fn release_addresses(&mut self, netlink: &mut RtnetlinkSocket, now: Instant) {
        if self.config.reset_connections && self.address_set.is_held() {
            // Before the addresses go: without its address, a connection cannot send its reset.
            if let Err(error) = reset_connections(&self.held_addresses) {
                self.report_failure("reset the connections of the addresses", &error, now);
            }
        }
        for AddressSetError { operation, source } in self.address_set.release(netlink) {
            self.report_failure(&operation, &source, now);
        }
    }

    /// Renews the lifetime of the addresses, if it is due.
    pub(super) fn renew_addresses(&mut self, netlink: &mut RtnetlinkSocket, now: Instant) {
        if let Err(AddressSetError { operation, source }) = self.address_set.renew(netlink, now) {
            self.report_failure(&operation, &source, now);
        }
    }

    /// Announces the addresses on the link.
    pub(super) fn announce_addresses(&mut self, now: Instant) {
        for index in 0..self.held_addresses.len() {
            let address = self.held_addresses[index];
            if let Err(error) = self.announcer.announce(address) {
                self.report_failure(&format!("announce address {address}"), &error, now);
            }
        }
        self.adverts.announced += 1;
    }

    /// Returns the next received advertisement for this virtual router that is accepted.
    pub(super) fn receive_advert(&mut self, now: Instant) -> Option<ReceivedAdvert> {
        // Bounded, so that a flood of packets does not delay the timers.
        for _ in 0..64 {
            let (header, bytes) = match self.socket.receive() {
                Ok(received) => received?,
                Err(error) => {
                    self.report_failure("receive advertisements", &error, now);
                    return None;
                }
            };
            let bytes = bytes.to_vec();
            if let Some(advert) = self.accept_advert(&header, &bytes, now) {
                return Some(advert);
            }
        }
        None
    }

    fn accept_advert(
        &mut self,
        header: &IpHeaderInfo,
        bytes: &[u8],
        now: Instant,
    ) -> Option<ReceivedAdvert> {
        let source = header.source;
        // The socket receives the advertisements for all virtual routers on the link.
        if source == self.socket.source() || bytes.get(1) != Some(&self.config.election.vrid) {
            return None;
        }
        let refusal = match self.validate_advert(header, bytes, now) {
            Ok(advert) => {
                self.adverts.received += 1;
                self.last_advert = Some(advert);
                return Some(advert);
            }
            Err(refusal) => refusal,
        };
        *self.adverts.refused.entry(refusal.label()).or_default() += 1;
        if self.is_report_due(refusal.label(), now) {
            self.pending_events
                .push(VrrpEventKind::AdvertRefused { source, reason: refusal.to_string() });
        }
        None
    }

    fn validate_advert(
        &mut self,
        header: &IpHeaderInfo,
        bytes: &[u8],
        now: Instant,
    ) -> Result<ReceivedAdvert, AdvertRefusal> {
        let source = header.source;
        let mut header = *header;
        if !self.config.peers.is_empty() {
            if !self.config.peers.contains(&source) {
                return Err(AdvertRefusal::UnknownPeer);
            }
            header.ttl = None;
        }
        let advert = Advert::parse(bytes, &header)?;
        if advert.version() != self.config.election.version {
            return Err(AdvertRefusal::VersionMismatch {
                theirs: advert.version(),
                own: self.config.election.version,
            });
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

    /// Reports an advertisement with other addresses than the configured. Such an advertisement is
    /// accepted all the same (RFC 9568, section 7.1).
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

    /// Reads ARP messages, and reports other machines that use an address while this router is master.
    pub(super) fn check_conflicts(&mut self, is_master: bool, now: Instant) {
        for _ in 0..64 {
            let Some((address, mac)) = self.announcer.receive_arp_claim() else { return };
            if is_master && self.held_addresses.contains(&address.into()) {
                self.adverts.conflicts += 1;
                if self.is_report_due("conflict", now) {
                    self.pending_events.push(VrrpEventKind::AddressConflict { address, mac });
                }
            }
        }
    }

    /// Updates the tracked items for the interface's link and the source address.
    pub(super) fn refresh_own_tracks(&mut self, netlink: &mut RtnetlinkSocket, now: Instant) {
        match netlink.interface(&self.config.interface) {
            Ok(link) => {
                let index = self.address_set.parent_index();
                let is_up = link.is_some_and(|link| link.is_up && link.index == index);
                self.set_track(LINK_TRACK, is_up);
            }
            Err(error) => self.report_failure("look up the interface", &error, now),
        }
        match netlink.addresses() {
            Ok(present) => {
                let source = self.config.election.source;
                let is_up = present.iter().any(|present| present.address.ip() == source);
                self.set_track(SOURCE_TRACK, is_up);
            }
            Err(error) => self.report_failure("list the addresses", &error, now),
        }
    }

    /// Sets whether a tracked item is up; returns `false` if there is no such item.
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

    fn report_failure(&mut self, operation: &str, error: &io::Error, now: Instant) {
        if self.is_report_due(operation, now) {
            self.pending_events.push(VrrpEventKind::OperationFailed {
                operation: operation.to_owned(),
                error: error.to_string(),
            });
        }
    }

    /// Tells whether a report of this subject is due, and records the report.
    fn is_report_due(&mut self, subject: &str, now: Instant) -> bool {
        let last = self.last_reports.get(subject).copied();
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= REPORT_INTERVAL);
        if is_due {
            self.last_reports.insert(subject.to_owned(), now);
        }
        is_due
    }
}

/// Returns what signs and what verifies the advertisements of a configuration with keys.
fn signature_keys(config: &VirtualRouterConfig) -> (Option<AdvertSigner>, Option<AdvertVerifier>) {
    let keys = &config.keys;
    let max_clock_skew = (config.election.interval * 3).max(Duration::from_secs(5));
    let verifier =
        (!keys.is_empty()).then(|| AdvertVerifier::new(keys.clone(), Some(max_clock_skew)));
    (keys.first().cloned().map(AdvertSigner::new), verifier)
}

/// Why an advertisement is refused.
#[derive(Debug, thiserror::Error)]
enum AdvertRefusal {
    #[error(transparent)]
    Advert(#[from] AdvertError),
    #[error(transparent)]
    Auth(#[from] AdvertAuthError),
    #[error("the advertisement is of VRRP {theirs}, and this router sends {own}")]
    VersionMismatch { theirs: VrrpVersion, own: VrrpVersion },
    #[error(
        "the advertisement has a plain text password: set `ignore_passwords = true` to accept such \
         advertisements"
    )]
    Password,
    #[error("the sender is not in `peers`")]
    UnknownPeer,
}

impl AdvertRefusal {
    /// Returns the label of the counter.
    const fn label(&self) -> &'static str {
        match self {
            Self::Advert(AdvertError::InvalidTtl(_)) => "ttl",
            Self::Advert(AdvertError::Checksum) => "checksum",
            Self::Advert(AdvertError::Version(_)) | Self::VersionMismatch { .. } => "version",
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
