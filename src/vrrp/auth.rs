//! Advertisements that prove who sent them: keepalived's `auth_hmac` trailer.
//!
//! Behind the message stand 28 bytes: the scheme (1: HMAC with SHA-256, cut to 16 bytes), the number
//! of the key, two zeros, when it was sent (seconds, 2^-16 seconds, a counter), and the HMAC. That
//! covers the family, the version, the virtual router, the sender's address, the message without its
//! checksum, and the trailer.
//!
//! VRRP itself has nothing of the kind: whoever is on the link can be master (RFC 9568, section 9).

use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use super::Advert;
use super::checksum::over;

const SCHEME: u8 = 1;
/// What goes before the HMAC, and the HMAC itself.
const PREFIX: usize = 12;
const MAC: usize = 16;
const TRAILER: usize = PREFIX + MAC;
/// Of how many senders the last word is remembered: more than there are routers.
const SENDERS: usize = 16;

/// A secret that routers share, and its number.
#[derive(Clone)]
pub struct Key {
    id: u8,
    secret: Box<[u8]>,
}

/// A secret is shorter or longer than it may be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a key of {0} bytes: 32 to 64")]
pub struct KeyLength(pub usize);

impl Key {
    /// A secret of 32 to 64 bytes from a good source of chance, such as `openssl rand 32`.
    ///
    /// # Errors
    /// [`KeyLength`].
    pub fn new(id: u8, secret: &[u8]) -> Result<Self, KeyLength> {
        match secret.len() {
            32..=64 => Ok(Self { id, secret: secret.into() }),
            length => Err(KeyLength(length)),
        }
    }

    fn mac(&self, message: &[u8], prefix: &[u8], source: IpAddr) -> Hmac<Sha256> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else {
            unreachable!("a key of any length will do")
        };
        let (version, router) = (message[0] >> 4, message[1]);
        let mut pseudo = [0; 20];
        match source {
            IpAddr::V4(source) => {
                pseudo[0] = 4;
                pseudo[4..8].copy_from_slice(&source.octets());
            }
            IpAddr::V6(source) => {
                pseudo[0] = 6;
                pseudo[4..].copy_from_slice(&source.octets());
            }
        }
        (pseudo[1], pseudo[2]) = (version, router);
        mac.update(&pseudo);
        mac.update(&message[..6]);
        mac.update(&[0; 2]);
        mac.update(&message[8..]);
        mac.update(prefix);
        mac.update(&[0; MAC]);
        mac
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Signs what a router sends.
#[derive(Debug)]
pub struct Signer {
    key: Key,
    last: u64,
}

impl Signer {
    /// By this key.
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self { key, last: 0 }
    }

    /// Puts a trailer behind a message that [`Message::write`](super::Message::write) has made for
    /// this source and destination. `now` is the time since 1970; it may stand still or go back, and
    /// the order of messages holds.
    ///
    /// What is too short to be a message is left as it is.
    pub fn sign(
        &mut self,
        bytes: &mut Vec<u8>,
        source: IpAddr,
        destination: IpAddr,
        now: Duration,
    ) {
        if bytes.len() < 8 {
            return;
        }
        self.last = sequence(now).max(self.last.saturating_add(1));
        let mut prefix = [SCHEME, self.key.id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        prefix[4..].copy_from_slice(&self.last.to_be_bytes());
        let mac = self.key.mac(bytes, &prefix, source).finalize().into_bytes();
        bytes.extend(prefix);
        bytes.extend(&mac[..MAC]);
        if source.is_ipv6() {
            // There the sum is that of all that IP carries; kernels see to it.
            bytes[6..8].fill(0);
            let sum = over(bytes, Some((source, destination)));
            bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Verifies what others send: one for each virtual router.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<Key>,
    window: Option<Duration>,
    /// The last word of each sender, the latest in front.
    senders: Vec<(IpAddr, u64)>,
}

/// Why an advertisement is not believed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AuthError {
    /// It has no trailer.
    #[error("it is not signed")]
    Missing,
    /// What follows it is no trailer of this kind.
    #[error("its trailer is not one of scheme 1")]
    Malformed,
    /// Nobody here has that key.
    #[error("key {0} is not known")]
    UnknownKey(u8),
    /// It was signed by another secret, or changed.
    #[error("its HMAC is wrong")]
    Mac,
    /// It is older or newer than the [window](Verifier::window) allows.
    #[error("it is {0:?} off")]
    Stale(Duration),
    /// The sender has said something later already.
    #[error("it was said before")]
    Replayed,
}

impl Verifier {
    /// By these keys: with two of them, one can be replaced without a break. At first without a
    /// window.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        Self { keys: keys.into_iter().collect(), window: None, senders: Vec::new() }
    }

    /// How far the sender's clock may be from this one; what is further off is refused, so that what
    /// was recorded cannot be played to one that has just started. The clocks must be set, as by NTP.
    /// keepalived's default: three intervals, and 5 s at least.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        Self { window: Some(window), ..self }
    }

    /// Is this what its sender has said, just now and for the first time? `now` is the time since
    /// 1970.
    ///
    /// # Errors
    /// [`AuthError`] says why not.
    pub fn verify(
        &mut self,
        advert: &Advert<'_>,
        source: IpAddr,
        now: Duration,
    ) -> Result<(), AuthError> {
        let trailer = advert.trailer();
        if trailer.is_empty() {
            return Err(AuthError::Missing);
        }
        let trailer: &[u8; TRAILER] = trailer.try_into().map_err(|_| AuthError::Malformed)?;
        let (prefix, mac) = trailer.split_at(PREFIX);
        let &[scheme, id, 0, 0, ref said @ ..] = prefix else { return Err(AuthError::Malformed) };
        let said: [u8; 8] = said.try_into().map_err(|_| AuthError::Malformed)?;
        if scheme != SCHEME {
            return Err(AuthError::Malformed);
        }
        let key = self.keys.iter().find(|key| key.id == id).ok_or(AuthError::UnknownKey(id))?;
        let said = u64::from_be_bytes(said);
        let fresh = |said: u64| {
            let off = Duration::from_secs((said >> 32).abs_diff(now.as_secs() & 0xffff_ffff));
            self.window
                .filter(|window| off > *window)
                .map_or(Ok(()), |_| Err(AuthError::Stale(off)))
        };
        fresh(said)?;
        let right = key.mac(advert.message(), prefix, source);
        right.verify_truncated_left(mac).map_err(|_| AuthError::Mac)?;
        // From here on it is the sender's own word. One whose last word lies outside the window had
        // its clock set, and begins anew.
        let known = self.senders.iter().position(|(sender, _)| *sender == source);
        if let Some(known) = known {
            let (_, last) = self.senders[known];
            if said <= last && fresh(last).is_ok() {
                return Err(AuthError::Replayed);
            }
            self.senders.remove(known);
        }
        self.senders.insert(0, (source, said));
        self.senders.truncate(SENDERS);
        Ok(())
    }
}

/// Seconds, and 2^-16 of them; the last 16 bits are for those that come at once.
fn sequence(now: Duration) -> u64 {
    let part = (u64::from(now.subsec_nanos()) << 16) / 1_000_000_000;
    (now.as_secs() << 32) | (part << 16)
}
