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
use super::checksum::internet_checksum;

const HMAC_SHA256_SCHEME: u8 = 1;
/// What goes before the HMAC, and the HMAC itself.
const TRAILER_PREFIX_LEN: usize = 12;
const HMAC_LEN: usize = 16;
const TRAILER_LEN: usize = TRAILER_PREFIX_LEN + HMAC_LEN;
/// Of how many senders the last word is remembered: more than there are routers.
const MAX_SENDERS: usize = 16;

/// A secret that routers share, and its number.
#[derive(Clone)]
pub struct AuthKey {
    id: u8,
    secret: Box<[u8]>,
}

/// A secret is shorter or longer than it may be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a key of {0} bytes: 32 to 64")]
pub struct AuthKeyLengthError(pub usize);

impl AuthKey {
    /// A secret of 32 to 64 bytes from a good source of chance, such as `openssl rand 32`.
    ///
    /// # Errors
    /// [`AuthKeyLengthError`].
    pub fn new(id: u8, secret: &[u8]) -> Result<Self, AuthKeyLengthError> {
        match secret.len() {
            32..=64 => Ok(Self { id, secret: secret.into() }),
            length => Err(AuthKeyLengthError(length)),
        }
    }

    fn compute_hmac(&self, message: &[u8], prefix: &[u8], source: IpAddr) -> Hmac<Sha256> {
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
        mac.update(&[0; HMAC_LEN]);
        mac
    }
}

impl std::fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Signs what a router sends.
#[derive(Debug)]
pub struct AdvertSigner {
    key: AuthKey,
    last_sequence: u64,
}

impl AdvertSigner {
    /// By this key.
    #[must_use]
    pub fn new(key: AuthKey) -> Self {
        Self { key, last_sequence: 0 }
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
        self.last_sequence = sequence_at(now).max(self.last_sequence.saturating_add(1));
        let mut prefix = [HMAC_SHA256_SCHEME, self.key.id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        prefix[4..].copy_from_slice(&self.last_sequence.to_be_bytes());
        let mac = self.key.compute_hmac(bytes, &prefix, source).finalize().into_bytes();
        bytes.extend(prefix);
        bytes.extend(&mac[..HMAC_LEN]);
        if source.is_ipv6() {
            // There the sum is that of all that IP carries; kernels see to it.
            bytes[6..8].fill(0);
            let sum = internet_checksum(bytes, Some((source, destination)));
            bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Verifies what others send: one for each virtual router.
#[derive(Debug)]
pub struct AdvertVerifier {
    keys: Vec<AuthKey>,
    window: Option<Duration>,
    /// The last word of each sender, the latest in front.
    last_sequences: Vec<(IpAddr, u64)>,
}

/// Why an advertisement is not believed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AdvertAuthError {
    /// It has no trailer.
    #[error("it is not signed")]
    Unsigned,
    /// What follows it is no trailer of this kind.
    #[error("its trailer is not one of scheme 1")]
    Malformed,
    /// Nobody here has that key.
    #[error("key {0} is not known")]
    UnknownKey(u8),
    /// It was signed by another secret, or changed.
    #[error("its HMAC is wrong")]
    InvalidHmac,
    /// It is older or newer than the [window](AdvertVerifier::window) allows.
    #[error("it is {0:?} off")]
    Stale(Duration),
    /// The sender has said something later already.
    #[error("it was said before")]
    Replayed,
}

impl AdvertVerifier {
    /// By these keys: with two of them, one can be replaced without a break. At first without a
    /// window.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = AuthKey>) -> Self {
        Self { keys: keys.into_iter().collect(), window: None, last_sequences: Vec::new() }
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
    /// [`AdvertAuthError`] says why not.
    pub fn verify(
        &mut self,
        advert: &Advert<'_>,
        source: IpAddr,
        now: Duration,
    ) -> Result<(), AdvertAuthError> {
        let trailer = advert.trailer();
        if trailer.is_empty() {
            return Err(AdvertAuthError::Unsigned);
        }
        let trailer: &[u8; TRAILER_LEN] =
            trailer.try_into().map_err(|_| AdvertAuthError::Malformed)?;
        let (prefix, mac) = trailer.split_at(TRAILER_PREFIX_LEN);
        let &[scheme, id, 0, 0, ref said @ ..] = prefix else {
            return Err(AdvertAuthError::Malformed);
        };
        let said: [u8; 8] = said.try_into().map_err(|_| AdvertAuthError::Malformed)?;
        if scheme != HMAC_SHA256_SCHEME {
            return Err(AdvertAuthError::Malformed);
        }
        let key =
            self.keys.iter().find(|key| key.id == id).ok_or(AdvertAuthError::UnknownKey(id))?;
        let said = u64::from_be_bytes(said);
        let fresh = |said: u64| {
            let off = Duration::from_secs((said >> 32).abs_diff(now.as_secs() & 0xffff_ffff));
            self.window
                .filter(|window| off > *window)
                .map_or(Ok(()), |_| Err(AdvertAuthError::Stale(off)))
        };
        fresh(said)?;
        let right = key.compute_hmac(advert.message(), prefix, source);
        right.verify_truncated_left(mac).map_err(|_| AdvertAuthError::InvalidHmac)?;
        // From here on it is the sender's own word. One whose last word lies outside the window had
        // its clock set, and begins anew.
        let known = self.last_sequences.iter().position(|(sender, _)| *sender == source);
        if let Some(known) = known {
            let (_, last) = self.last_sequences[known];
            if said <= last && fresh(last).is_ok() {
                return Err(AdvertAuthError::Replayed);
            }
            self.last_sequences.remove(known);
        }
        self.last_sequences.insert(0, (source, said));
        self.last_sequences.truncate(MAX_SENDERS);
        Ok(())
    }
}

/// Seconds, and 2^-16 of them; the last 16 bits are for those that come at once.
fn sequence_at(now: Duration) -> u64 {
    let part = (u64::from(now.subsec_nanos()) << 16) / 1_000_000_000;
    (now.as_secs() << 32) | (part << 16)
}
