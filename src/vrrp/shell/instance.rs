//! One virtual router on this machine: what is sent for it, and what it has while it is master.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::announce::Announcer;
use super::netlink::{Link, Netlink};
use super::place::Place;
use super::socket::AdvertSocket;
use super::view::Adverts;
use super::{StartError, VirtualRouter, What};
use crate::vrrp::{
    Advert, AdvertError, AuthError, Envelope, Heard, Message, Signer, State, Tracks, Verifier,
};

/// The tracks that are its own: the link, the address that it sends from, and the virtual addresses,
/// which the system may refuse.
const LINK: &str = "link";
const SOURCE: &str = "source address";
const ADDRESSES: &str = "virtual addresses";
/// How long before it tries again to have the addresses.
const AGAIN: Duration = Duration::from_secs(5);
/// How often the same complaint is repeated.
const QUIET: Duration = Duration::from_secs(10);

/// One virtual router, but for the election.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) asked: VirtualRouter,
    pub(super) socket: AdvertSocket,
    pub(super) announcer: Announcer,
    pub(super) place: Place,
    pub(super) tracks: Tracks,
    pub(super) adverts: Adverts,
    pub(super) transitions: BTreeMap<State, u64>,
    pub(super) since: Instant,
    pub(super) heard: Option<Heard>,
    /// When to try again to have the addresses.
    pub(super) again: Option<Instant>,
    addresses: Vec<IpAddr>,
    signer: Option<Signer>,
    verifier: Option<Verifier>,
    /// When each complaint was last made; there are as many as there are things to do.
    said: BTreeMap<String, Instant>,
    pub(super) events: Vec<What>,
}

impl Instance {
    /// Opens what it needs, and makes sure that the addresses are not there.
    pub(super) fn open(
        asked: VirtualRouter,
        netlink: &mut Netlink,
        now: Instant,
    ) -> Result<Self, StartError> {
        let base = link(&asked.interface, netlink)?;
        let place = Place::open(&asked, base, netlink)?;
        let source = asked.election.address;
        let socket =
            AdvertSocket::open(&asked.interface, place.sends_by(&asked), source, &asked.peers)?;
        let announcer = Announcer::open(place.name(), place.index(), place.mac())
            .map_err(StartError::doing("open a packet socket"))?;
        let mut tracks = Tracks::new(asked.election.priority);
        for name in [LINK, SOURCE, ADDRESSES] {
            tracks.insert(name, crate::vrrp::Impact::Fault, true);
        }
        for (name, impact) in &asked.tracks {
            tracks.insert(name.clone(), *impact, true);
        }
        let keys = &asked.keys;
        let window = (asked.election.interval * 3).max(Duration::from_secs(5));
        Ok(Self {
            socket,
            announcer,
            place,
            tracks,
            adverts: Adverts::default(),
            transitions: BTreeMap::new(),
            since: now,
            heard: None,
            again: None,
            addresses: asked.addresses.iter().map(super::VirtualAddress::ip).collect(),
            signer: keys.first().cloned().map(Signer::new),
            verifier: (!keys.is_empty()).then(|| Verifier::new(keys.clone()).window(window)),
            said: BTreeMap::new(),
            events: Vec::new(),
            asked,
        })
    }

    /// Sends an advertisement of this priority to all that should hear it.
    pub(super) fn send(&mut self, priority: u8, now: Instant) {
        let election = &self.asked.election;
        let message = Message {
            version: election.version,
            router: election.id,
            priority,
            interval: election.interval,
            addresses: &self.addresses,
        };
        let (source, checksum) = (election.address, self.asked.checksum);
        let signer = &mut self.signer;
        let sent = self.socket.send(|to| {
            // It was written once already, when all began.
            let mut bytes = message.write(source, to, checksum).unwrap_or_default();
            if let Some(signer) = signer {
                signer.sign(&mut bytes, source, to, since_1970());
            }
            bytes
        });
        match sent {
            Ok(()) => self.adverts.sent += 1,
            Err(error) => {
                self.adverts.unsent += 1;
                self.failed("send an advertisement", &error, now);
            }
        }
    }

    /// Takes the addresses; whoever cannot have them must not be master.
    pub(super) fn acquire(&mut self, netlink: &mut Netlink, now: Instant) {
        if let Err((what, error)) = self.place.acquire(netlink, now) {
            self.failed(&what, &error, now);
            self.again = Some(now + AGAIN);
            let _ = self.tracks.set(ADDRESSES, false);
        }
    }

    /// Tries again to have them, when it is elected.
    pub(super) fn try_again(&mut self) {
        self.again = None;
        let _ = self.tracks.set(ADDRESSES, true);
    }

    /// Gives the addresses up.
    pub(super) fn release(&mut self, netlink: &mut Netlink, now: Instant) {
        for (what, error) in self.place.release(netlink) {
            self.failed(&what, &error, now);
        }
    }

    /// Lets the addresses be there for another while.
    pub(super) fn renew(&mut self, netlink: &mut Netlink, now: Instant) {
        if let Err((what, error)) = self.place.renew(netlink, now) {
            self.failed(&what, &error, now);
        }
    }

    /// Tells the link where the addresses are.
    pub(super) fn announce(&mut self, now: Instant) {
        for place in 0..self.addresses.len() {
            let address = self.addresses[place];
            if let Err(error) = self.announcer.announce(address) {
                self.failed(&format!("announce {address}"), &error, now);
            }
        }
        self.adverts.announced += 1;
    }

    /// What has come for this virtual router, and is believed.
    pub(super) fn receive(&mut self, now: Instant) -> Option<Heard> {
        // Bounded: whoever floods the link is read in turns.
        for _ in 0..64 {
            let (envelope, bytes) = match self.socket.receive() {
                Ok(received) => received?,
                Err(error) => {
                    self.failed("receive", &error, now);
                    return None;
                }
            };
            let bytes = bytes.to_vec();
            if let Some(heard) = self.believe(&envelope, &bytes, now) {
                return Some(heard);
            }
        }
        None
    }

    fn believe(&mut self, envelope: &Envelope, bytes: &[u8], now: Instant) -> Option<Heard> {
        let source = envelope.source;
        // Other virtual routers live on the same link.
        if source == self.socket.source() || bytes.get(1) != Some(&self.asked.election.id) {
            return None;
        }
        let refusal = match self.check(envelope, bytes, now) {
            Ok(heard) => {
                self.adverts.received += 1;
                self.heard = Some(heard);
                return Some(heard);
            }
            Err(refusal) => refusal,
        };
        *self.adverts.refused.entry(refusal.name()).or_default() += 1;
        if self.is_news(refusal.name(), now) {
            self.events.push(What::Refused { source, why: refusal.to_string() });
        }
        None
    }

    fn check(&mut self, envelope: &Envelope, bytes: &[u8], now: Instant) -> Result<Heard, Refusal> {
        let source = envelope.source;
        let mut envelope = *envelope;
        if !self.asked.peers.is_empty() {
            if !self.asked.peers.contains(&source) {
                return Err(Refusal::Stranger);
            }
            envelope.ttl = None;
        }
        let advert = Advert::read(bytes, &envelope)?;
        if advert.version() != self.asked.election.version {
            return Err(Refusal::OtherVersion);
        }
        let has_password = advert.authentication().is_some_and(|(kind, _)| kind != 0);
        if has_password && !self.asked.ignores_passwords {
            return Err(Refusal::Password);
        }
        if let Some(verifier) = &mut self.verifier {
            verifier.verify(&advert, source, since_1970())?;
        }
        self.compare(&advert, source, now);
        Ok(Heard::new(&advert, source))
    }

    /// The others should have the same addresses; they take part all the same (RFC 9568, 7.1).
    fn compare(&mut self, advert: &Advert<'_>, source: IpAddr, now: Instant) {
        let ours = &self.addresses;
        let is_same = advert.addresses().count() == ours.len()
            && advert.addresses().all(|address| ours.contains(&address));
        if !is_same {
            self.adverts.mismatched += 1;
            if self.is_news("mismatch", now) {
                let addresses = advert.addresses().collect();
                self.events.push(What::Mismatch { source, addresses });
            }
        }
    }

    /// Hears who else has the addresses; of interest to a master.
    pub(super) fn hear_conflicts(&mut self, is_master: bool, now: Instant) {
        for _ in 0..64 {
            let Some((address, mac)) = self.announcer.heard() else { return };
            if is_master && self.addresses.contains(&address.into()) {
                self.adverts.conflicts += 1;
                if self.is_news("conflict", now) {
                    self.events.push(What::Conflict { address, mac });
                }
            }
        }
    }

    /// Looks whether the link is up, and the address there that it sends from.
    pub(super) fn look(&mut self, netlink: &mut Netlink, now: Instant) {
        match netlink.link(&self.asked.interface) {
            Ok(link) => {
                let is_up = link.is_some_and(|it| it.is_up && it.index == self.place.base());
                self.track(LINK, is_up);
            }
            Err(error) => self.failed("look at the interface", &error, now),
        }
        match netlink.addresses() {
            Ok(held) => {
                let source = self.asked.election.address;
                self.track(SOURCE, held.iter().any(|held| held.address.ip() == source));
            }
            Err(error) => self.failed("look at the addresses", &error, now),
        }
    }

    /// Says that something is up, or down; `false` if it is not tracked.
    pub(super) fn track(&mut self, name: &str, is_up: bool) -> bool {
        match self.tracks.set(name, is_up) {
            Ok(true) => {
                self.events.push(What::Tracked { name: name.to_owned(), is_up });
                true
            }
            Ok(false) => true,
            Err(_) => false,
        }
    }

    fn failed(&mut self, what: &str, error: &io::Error, now: Instant) {
        if self.is_news(what, now) {
            self.events.push(What::Failed { what: what.to_owned(), error: error.to_string() });
        }
    }

    fn is_news(&mut self, what: &str, now: Instant) -> bool {
        let last = self.said.get(what).copied();
        let is_news = last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if is_news {
            self.said.insert(what.to_owned(), now);
        }
        is_news
    }
}

/// The interface of this name, which must be an Ethernet.
pub(super) fn link(name: &str, netlink: &mut Netlink) -> Result<Link, StartError> {
    let link = netlink.link(name).map_err(StartError::doing("look at the interface"))?;
    let link = link.ok_or_else(|| StartError::Interface(name.to_owned()))?;
    if link.mac.len() != 6 {
        return Err(StartError::Ethernet(name.to_owned()));
    }
    Ok(link)
}

/// The address of an interface that a router sends from, if it is not told.
pub(super) fn source(
    interface: &str,
    is_v6: bool,
    netlink: &mut Netlink,
) -> Result<IpAddr, StartError> {
    let link = link(interface, netlink)?;
    let held = netlink.addresses().map_err(StartError::doing("look at the addresses"))?;
    let will_do = |address: IpAddr| match address {
        IpAddr::V4(_) => !is_v6,
        IpAddr::V6(address) => is_v6 && address.is_unicast_link_local(),
    };
    // Those with a lifetime may be virtual ones of a predecessor; if need be, they will do.
    let here = || held.iter().filter(|it| it.index == link.index && will_do(it.address.ip()));
    let found = here().find(|it| it.lifetime.is_none()).or_else(|| here().next());
    found.map(|it| it.address.ip()).ok_or_else(|| StartError::NoSource {
        interface: interface.to_owned(),
        family: if is_v6 { "link-local IPv6" } else { "IPv4" },
    })
}

/// Why an advertisement is not believed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Advert(#[from] AdvertError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("it is of another version of the protocol")]
    OtherVersion,
    #[error("it has a password, which proves nothing")]
    Password,
    #[error("it is no peer")]
    Stranger,
}

impl Refusal {
    /// A label for counts.
    const fn name(&self) -> &'static str {
        match self {
            Self::Advert(AdvertError::Forwarded(_)) => "ttl",
            Self::Advert(AdvertError::Checksum) => "checksum",
            Self::Advert(AdvertError::Version(_)) | Self::OtherVersion => "version",
            Self::Advert(_) => "malformed",
            Self::Auth(AuthError::Missing) => "unsigned",
            Self::Auth(AuthError::Stale(_)) => "stale",
            Self::Auth(AuthError::Replayed) => "replayed",
            Self::Auth(_) => "forged",
            Self::Password => "password",
            Self::Stranger => "stranger",
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
