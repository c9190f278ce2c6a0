//! Authentication of advertisements: keepalived's `auth_hmac` trailer.
//!
//! The trailer has 28 bytes behind the message: the scheme (1: HMAC with SHA-256, truncated to 16
//! bytes), the number of the key, two zeros, the time of sending (seconds, 2^-16 seconds, a counter),
//! and the HMAC. The HMAC covers the address family, the version, the virtual router, the sender's
//! address, the message without its checksum, and the trailer.
//!
//! VRRP itself has no authentication: any host on the link can become master (RFC 9568, section 9).

use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use super::Advert;
use super::checksum::internet_checksum;

const HMAC_SHA256_SCHEME: u8 = 1;
/// The length of the trailer before the HMAC.
const TRAILER_PREFIX_LEN: usize = 12;
const HMAC_LEN: usize = 16;
const TRAILER_LEN: usize = TRAILER_PREFIX_LEN + HMAC_LEN;
/// The number of senders whose last sequence number is kept: more than a link has routers.
const MAX_SENDERS: usize = 16;

/// A secret that routers share, and its number.
#[derive(Clone)]
pub struct AuthKey {
    id: u8,
    secret: Box<[u8]>,
}

/// The error for a secret of the wrong length.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the key has {0} bytes, and must have 32 to 64")]
pub struct AuthKeyLengthError(pub usize);

impl AuthKey {
    /// Creates a key from a secret of 32 to 64 bytes, which should come from a good source of random
    /// bytes, such as `openssl rand 32`.
    ///
    /// # Errors
    /// [`AuthKeyLengthError`] if the secret has another length.
    pub fn new(id: u8, secret: &[u8]) -> Result<Self, AuthKeyLengthError> {
        match secret.len() {
            32..=64 => Ok(Self { id, secret: secret.into() }),
            length => Err(AuthKeyLengthError(length)),
        }
    }

    /// Tells whether two keys are the same, for a change of a configuration: not in constant time.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.id, &self.secret) == (other.id, &other.secret)
    }

    fn compute_hmac(&self, message: &[u8], prefix: &[u8], source: IpAddr) -> Hmac<Sha256> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else {
            unreachable!("HMAC accepts keys of any length")
        };
        let (version, vrid) = (message[0] >> 4, message[1]);
        let mut pseudo_header = [0; 20];
        match source {
            IpAddr::V4(source) => {
                pseudo_header[0] = 4;
                pseudo_header[4..8].copy_from_slice(&source.octets());
            }
            IpAddr::V6(source) => {
                pseudo_header[0] = 6;
                pseudo_header[4..].copy_from_slice(&source.octets());
            }
        }
        (pseudo_header[1], pseudo_header[2]) = (version, vrid);
        mac.update(&pseudo_header);
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
        f.debug_struct("AuthKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Signs the advertisements that a router sends.
#[derive(Debug)]
pub struct AdvertSigner {
    key: AuthKey,
    last_sequence: u64,
}

impl AdvertSigner {
    /// Creates a signer that uses this key.
    #[must_use]
    pub fn new(key: AuthKey) -> Self {
        Self { key, last_sequence: 0 }
    }

    /// Appends the trailer to a message that
    /// [`OutgoingAdvert::encode`](super::OutgoingAdvert::encode) made for this source and destination.
    /// `now` is the time since 1970. If it stands still or goes back, the sequence numbers increase
    /// all the same.
    ///
    /// Bytes that are too short for a message are not changed.
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
            // Over IPv6 the checksum covers the whole payload; kernels compute it so.
            bytes[6..8].fill(0);
            let sum = internet_checksum(bytes, Some((source, destination)));
            bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Verifies the advertisements of other routers, for one virtual router.
#[derive(Debug)]
pub struct AdvertVerifier {
    keys: Vec<AuthKey>,
    max_clock_skew: Option<Duration>,
    /// The last sequence number of each sender, the most recent sender first.
    last_sequences: Vec<(IpAddr, u64)>,
}

/// The error for an advertisement that fails authentication.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AdvertAuthError {
    /// The advertisement has no trailer.
    #[error("the advertisement is not signed, and a key is set here (`auth_key`)")]
    Unsigned,
    /// The bytes behind the message are not a trailer of this kind.
    #[error("the signature of the advertisement has an unknown format")]
    Malformed,
    /// The verifier has no key of this number.
    #[error("the advertisement is signed with key number {0}, which is not set here")]
    UnknownKey(u8),
    /// The HMAC is wrong: the sender has another secret, or the message was changed.
    #[error("the signature does not match: do both routers have the same `auth_key`?")]
    InvalidHmac,
    /// The timestamp differs from the clock by more than the
    /// [allowed clock skew](AdvertVerifier::new).
    #[error(
        "the timestamp of the advertisement differs from this machine's clock by {0:?}: synchronize \
         the clocks of both machines"
    )]
    Stale(Duration),
    /// The sequence number is not higher than the last from this sender: the advertisement is replayed.
    #[error("the advertisement was received before, or out of order (replay)")]
    Replayed,
}

impl AdvertVerifier {
    /// Creates a verifier that accepts these keys: with two of them, a key can be replaced without an
    /// interruption.
    ///
    /// `max_clock_skew` is how far the sender's clock may differ from this machine's. Without a limit
    /// a recorded advertisement can be replayed to a router that has just started; with a limit, the
    /// clocks must be synchronized, as by NTP. keepalived's default: three intervals, and at least 5 s.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = AuthKey>, max_clock_skew: Option<Duration>) -> Self {
        Self { keys: keys.into_iter().collect(), max_clock_skew, last_sequences: Vec::new() }
    }

    /// Verifies that `source` signed the advertisement, just now and for the first time. `now` is the
    /// time since 1970.
    ///
    /// # Errors
    /// [`AdvertAuthError`] says which check failed.
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
        let &[scheme, id, 0, 0, ref sequence @ ..] = prefix else {
            return Err(AdvertAuthError::Malformed);
        };
        let sequence: [u8; 8] = sequence.try_into().map_err(|_| AdvertAuthError::Malformed)?;
        if scheme != HMAC_SHA256_SCHEME {
            return Err(AdvertAuthError::Malformed);
        }
        let key =
            self.keys.iter().find(|key| key.id == id).ok_or(AdvertAuthError::UnknownKey(id))?;
        let sequence = u64::from_be_bytes(sequence);
        self.check_clock_skew(sequence, now)?;
        let hmac = key.compute_hmac(advert.message(), prefix, source);
        hmac.verify_truncated_left(mac).map_err(|_| AdvertAuthError::InvalidHmac)?;
        // The sender is authentic from here on. A sender whose last timestamp is outside the allowed
        // skew had its clock set, and starts a new sequence.
        let known = self.last_sequences.iter().position(|(sender, _)| *sender == source);
        if let Some(index) = known {
            let (_, last) = self.last_sequences[index];
            if sequence <= last && self.check_clock_skew(last, now).is_ok() {
                return Err(AdvertAuthError::Replayed);
            }
            self.last_sequences.remove(index);
        }
        self.last_sequences.insert(0, (source, sequence));
        self.last_sequences.truncate(MAX_SENDERS);
        Ok(())
    }

    fn check_clock_skew(&self, sequence: u64, now: Duration) -> Result<(), AdvertAuthError> {
        let skew = Duration::from_secs((sequence >> 32).abs_diff(now.as_secs() & 0xffff_ffff));
        match self.max_clock_skew {
            Some(max) if skew > max => Err(AdvertAuthError::Stale(skew)),
            _ => Ok(()),
        }
    }
}

/// Returns the sequence number for a time: seconds, and 2^-16 seconds; the last 16 bits count
/// messages of the same time.
fn sequence_at(now: Duration) -> u64 {
    let fraction = (u64::from(now.subsec_nanos()) << 16) / 1_000_000_000;
    (now.as_secs() << 32) | (fraction << 16)
}
