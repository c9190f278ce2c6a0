//! The TLS connection that the sender of a header terminated.

use std::fmt;

use super::error::TlvError;
use super::tlv::{Tlv, TlvIter, as_text, parse_tlvs};

/// The TLS connection between the client and the sender of a header (section 2.2.6).
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SslTlv<'a> {
    value: &'a [u8],
}

impl<'a> SslTlv<'a> {
    /// The length of the flags and of the verification result.
    pub(super) const FIXED_LEN: usize = 5;

    /// Wraps the value of a [`Tlv::SSL`].
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self { value }
    }

    /// Checks the nested TLVs.
    pub(super) fn check(self) -> Result<(), TlvError> {
        let mut seen = [false; 256];
        for item in parse_tlvs(self.nested_tlvs()) {
            let (_, Tlv { kind, value }) = item?;
            // Types that later revisions of the specification added need not be text.
            if matches!(kind, Tlv::SSL_VERSION..=Tlv::SSL_KEY_ALG) {
                if std::mem::replace(&mut seen[usize::from(kind)], true) {
                    return Err(TlvError::Duplicate { kind });
                }
                if str::from_utf8(value).is_err() {
                    return Err(TlvError::Text { kind });
                }
            }
        }
        Ok(())
    }

    fn nested_tlvs(self) -> &'a [u8] {
        self.value.get(Self::FIXED_LEN..).unwrap_or_default()
    }

    fn text(self, kind: u8) -> Option<&'a str> {
        as_text(self.get(kind))
    }

    /// Returns the flags as received.
    #[must_use]
    pub fn flags(self) -> u8 {
        self.value.first().copied().unwrap_or_default()
    }

    /// Returns whether the client used TLS.
    #[must_use]
    pub fn is_tls(self) -> bool {
        self.flags() & 0x01 != 0
    }

    /// Returns whether the client presented a certificate on this connection.
    #[must_use]
    pub fn has_connection_certificate(self) -> bool {
        self.flags() & 0x02 != 0
    }

    /// Returns whether the client presented a certificate on this or an earlier connection of the
    /// same TLS session.
    #[must_use]
    pub fn has_session_certificate(self) -> bool {
        self.flags() & 0x04 != 0
    }

    /// Returns the result of verifying the client's certificate: 0 if the client presented a
    /// certificate and it is valid.
    #[must_use]
    pub fn verify(self) -> u32 {
        self.value.iter().take(Self::FIXED_LEN).skip(1).fold(0, |sum, &b| sum << 8 | u32::from(b))
    }

    /// Returns whether the client presented a certificate, on this connection or earlier in its
    /// session, and the sender verified it.
    #[must_use]
    pub fn is_verified(self) -> bool {
        self.verify() == 0 && (self.has_connection_certificate() || self.has_session_certificate())
    }

    /// Returns the TLS version, such as `TLSv1.3`.
    #[must_use]
    pub fn version(self) -> Option<&'a str> {
        self.text(Tlv::SSL_VERSION)
    }

    /// Returns the common name in the client's certificate.
    #[must_use]
    pub fn common_name(self) -> Option<&'a str> {
        self.text(Tlv::SSL_CN)
    }

    /// Returns the cipher, such as `ECDHE-RSA-AES128-GCM-SHA256`.
    #[must_use]
    pub fn cipher(self) -> Option<&'a str> {
        self.text(Tlv::SSL_CIPHER)
    }

    /// Returns the algorithm that signed the sender's certificate, such as `RSA-SHA256`.
    #[must_use]
    pub fn signature_algorithm(self) -> Option<&'a str> {
        self.text(Tlv::SSL_SIG_ALG)
    }

    /// Returns the algorithm of the key in the sender's certificate, such as `RSA2048`.
    #[must_use]
    pub fn key_algorithm(self) -> Option<&'a str> {
        self.text(Tlv::SSL_KEY_ALG)
    }

    /// Iterates over the nested TLVs.
    pub fn iter(self) -> impl Iterator<Item = Tlv<'a>> + Clone {
        TlvIter(self.nested_tlvs())
    }

    /// Returns the first nested value of a type.
    #[must_use]
    pub fn get(self, kind: u8) -> Option<&'a [u8]> {
        self.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }
}

impl fmt::Debug for SslTlv<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SslTlv")
            .field("flags", &self.flags())
            .field("verify", &self.verify())
            .field("tlvs", &self.iter().collect::<Vec<_>>())
            .finish()
    }
}
