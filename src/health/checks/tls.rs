//! Does it make a TLS handshake, with a certificate that holds?

mod verify;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use self::verify::{AnyCertificateVerifier, PinnedCertificateVerifier};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// How to speak TLS with a backend: whom to trust, and under which name.
///
/// Speaks 1.2 and 1.3. Sessions are not resumed: each check is a full handshake, with the certificate
/// looked at.
///
/// # Examples
/// ```
/// use lvs::health::{TlsSettings, TlsCheck};
///
/// let tls = TlsSettings::unverified().server_name("www.example.org")?.warn_before_days(30);
/// let check = TlsCheck::new(tls);
/// # let _ = check;
/// # Ok::<(), lvs::health::TlsSettingsError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TlsSettings {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    warn_before: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl TlsSettings {
    /// Trusts the authorities that this machine trusts.
    ///
    /// # Errors
    /// [`TlsSettingsError::NoRoots`] if this machine has none.
    pub fn system_roots() -> Result<Self, TlsSettingsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = rustls::RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let reason = found.errors.first().map(ToString::to_string).unwrap_or_default();
            return Err(TlsSettingsError::NoRoots { reason });
        }
        Ok(Self::build(|builder| builder.with_root_certificates(roots).with_no_client_auth()))
    }

    /// Trusts the authorities in this PEM text, and no others.
    ///
    /// # Errors
    /// [`TlsSettingsError::Pem`] if there is no certificate in it, or one cannot be read.
    pub fn authorities(pem: &[u8]) -> Result<Self, TlsSettingsError> {
        let wrong = |reason: String| TlsSettingsError::Pem { reason };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("there is no certificate in it".into()));
        }
        Ok(Self::build(|builder| builder.with_root_certificates(roots).with_no_client_auth()))
    }

    /// Trusts the one certificate of this SHA-256 digest (of its DER form, what
    /// `openssl x509 -fingerprint -sha256` prints), whoever signed it, and whatever its name and
    /// dates say.
    pub fn pinned(sha256: [u8; 32]) -> Self {
        Self::build(|builder| {
            let verifier = Arc::new(PinnedCertificateVerifier::new(sha256, crypto_provider()));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        })
    }

    /// Trusts anybody, as keepalived's `SSL_GET` does: says that something speaks TLS there, and
    /// nothing of who it is.
    pub fn unverified() -> Self {
        Self::build(|builder| {
            let verifier = Arc::new(AnyCertificateVerifier::new(crypto_provider()));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        })
    }

    /// The name to ask for (SNI), and for which the certificate must hold. Default: the backend's
    /// address, for which certificates of public services do not hold.
    ///
    /// # Errors
    /// [`TlsSettingsError::Name`] if it is no DNS name or address.
    pub fn server_name(self, name: &str) -> Result<Self, TlsSettingsError> {
        let wrong = |_| TlsSettingsError::Name { name: name.to_owned() };
        let name = ServerName::try_from(name.to_owned()).map_err(wrong)?;
        Ok(Self { server_name: Some(name), ..self })
    }

    /// Warns when the certificate ends within so many days. Default: 14; 0 for never.
    pub fn warn_before_days(self, days: u16) -> Self {
        Self { warn_before: DAY * u32::from(days), ..self }
    }

    fn build(
        make: impl FnOnce(rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>) -> ClientConfig,
    ) -> Self {
        // ring rather than the process's choice: a library must not depend on what others installed.
        let builder = ClientConfig::builder_with_provider(crypto_provider());
        let builder = builder.with_safe_default_protocol_versions();
        let mut config = make(builder.unwrap_or_else(|_| unreachable!("ring has TLS 1.2 and 1.3")));
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), server_name: None, warn_before: DAY * 14 }
    }

    /// Makes the handshake.
    pub(super) async fn handshake(
        &self,
        probe: &CheckContext,
        stream: TcpStream,
        protocols: &[&[u8]],
    ) -> Result<TlsSession, CheckFailure> {
        probe.set_stage("waiting for the TLS handshake");
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        let address = || ServerName::IpAddress(probe.address().ip().into());
        let name = self.server_name.clone().unwrap_or_else(address);
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls {
                Some(error) => {
                    CheckFailure::new(CheckFailureKind::Tls, format!("TLS handshake: {error}"))
                }
                None => CheckFailure::io("TLS handshake", &error),
            }
        })?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let ends = certificate.and_then(|it| not_after(it));
        let warning = ends.and_then(|at| self.expiry_warning(at, SystemTime::now()));
        Ok(TlsSession { stream, warning })
    }

    fn expiry_warning(&self, ends: SystemTime, now: SystemTime) -> Option<String> {
        let left = ends.duration_since(now).unwrap_or(Duration::ZERO);
        if left >= self.warn_before {
            return None;
        }
        let days = left.as_secs() / DAY.as_secs();
        Some(match left {
            Duration::ZERO => "the certificate has expired".to_owned(),
            _ => format!("the certificate expires in {days} days"),
        })
    }
}

fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// When a certificate ends; `None` for one that cannot be read.
fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A connection that has made its handshake.
pub(super) struct TlsSession {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) warning: Option<String>,
}

/// Up if a TLS handshake can be made; warns when the certificate ends soon.
///
/// # Examples
/// ```no_run
/// use lvs::health::{TlsSettings, TlsCheck};
///
/// let check = TlsCheck::new(TlsSettings::system_roots()?.server_name("www.example.org")?);
/// # let _ = check;
/// # Ok::<(), lvs::health::TlsSettingsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TlsCheck {
    tls: TlsSettings,
}

impl TlsCheck {
    /// Makes the handshake, and no more.
    #[must_use]
    pub fn new(tls: TlsSettings) -> Self {
        Self { tls }
    }
}

impl Check for TlsCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let stream = probe.connect().await?;
        let session = self.tls.handshake(probe, stream, &[]).await?;
        Ok(match session.warning {
            Some(warning) => CheckReport::up().with_warning(warning),
            None => CheckReport::up(),
        })
    }

    fn name(&self) -> &str {
        "tls"
    }
}

/// Why a [`TlsSettings`] cannot be made.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TlsSettingsError {
    /// This machine trusts no authorities.
    #[error("this machine has no certificates of authorities that it trusts: {reason}")]
    NoRoots {
        /// What was found instead.
        reason: String,
    },
    /// The text holds no certificate that can be read.
    #[error("the PEM text cannot be used: {reason}")]
    Pem {
        /// What is wrong with it.
        reason: String,
    },
    /// That is no DNS name, and no address.
    #[error("{name:?} is no DNS name and no address")]
    Name {
        /// What was given.
        name: String,
    },
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_in_its_last_days() {
        let tls = TlsSettings::unverified();
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        assert_eq!(tls.expiry_warning(now + DAY * 14, now), None);
        let warning = tls.expiry_warning(now + DAY * 3 + DAY / 2, now);
        assert_eq!(warning.as_deref(), Some("the certificate expires in 3 days"));
        assert_eq!(
            tls.expiry_warning(now - DAY, now).as_deref(),
            Some("the certificate has expired")
        );
        assert_eq!(tls.warn_before_days(0).expiry_warning(now + DAY, now), None);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert!(matches!(TlsSettings::authorities(b"no PEM"), Err(TlsSettingsError::Pem { .. })));
        assert!(matches!(
            TlsSettings::unverified().server_name("a b"),
            Err(TlsSettingsError::Name { .. })
        ));
    }
}
