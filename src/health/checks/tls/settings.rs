//! The TLS settings of checks, and the handshake.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::TlsSettingsError;
use super::verify::{AnyCertificateVerifier, AuthorityVerifier, PinnedCertificateVerifier};
use crate::health::{CheckContext, CheckFailure, CheckFailureKind};

/// The TLS settings of a check: the trusted certificates, and the server name.
///
/// TLS 1.2 and 1.3. Sessions are not resumed: each check makes a full handshake and verifies the
/// certificate.
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
    /// Trusts the certificate authorities of the system.
    ///
    /// # Errors
    /// [`TlsSettingsError::NoRoots`] if the system has none.
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

    /// Trusts only the certificate authorities in a PEM text, and the certificates in it themselves: a
    /// server with a self-signed certificate is trusted by that certificate. Name and dates count as
    /// for any other.
    ///
    /// # Errors
    /// [`TlsSettingsError::Pem`] if the text has no certificate, or an invalid certificate.
    pub fn authorities(pem: &[u8]) -> Result<Self, TlsSettingsError> {
        let pem_error = |reason: String| TlsSettingsError::Pem { reason };
        let certificates = parse_certificates(pem)?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| pem_error(error.to_string()))?;
        }
        let verifier = AuthorityVerifier::new(roots, certificates, crypto_provider());
        let verifier = Arc::new(verifier.map_err(|error| pem_error(error.to_string()))?);
        Ok(Self::build(|builder| {
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }))
    }

    /// Sends a client certificate to servers that ask for one. Both are PEM texts: the certificate with
    /// those of its signers, and its private key without a password. Default: none.
    ///
    /// # Errors
    /// [`TlsSettingsError::Pem`] if the first text has no certificate, or an invalid certificate;
    /// [`TlsSettingsError::ClientKey`] if the second has no private key, or the key of another
    /// certificate.
    pub fn client_certificate(self, chain: &[u8], key: &[u8]) -> Result<Self, TlsSettingsError> {
        let key_error = |reason: String| TlsSettingsError::ClientKey { reason };
        let chain = parse_certificates(chain)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| key_error(error.to_string()))?;
        let certified = CertifiedKey::from_der(chain, key, &crypto_provider());
        let certified = certified.map_err(|error| key_error(error.to_string()))?;
        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Ok(Self { config: Arc::new(config), ..self })
    }

    /// Trusts only the certificate with this SHA-256 digest (of its DER form, as
    /// `openssl x509 -fingerprint -sha256` prints), with any signer, name and dates.
    pub fn pinned(sha256: [u8; 32]) -> Self {
        Self::build(|builder| {
            let verifier = Arc::new(PinnedCertificateVerifier::new(sha256, crypto_provider()));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        })
    }

    /// Trusts any certificate, as keepalived's `SSL_GET` does: the check then does not verify the
    /// identity of the server.
    pub fn unverified() -> Self {
        Self::build(|builder| {
            let verifier = Arc::new(AnyCertificateVerifier::new(crypto_provider()));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        })
    }

    /// Sets the server name (SNI), for which the certificate must be valid. Default: the backend's
    /// address, for which certificates of public services are not valid.
    ///
    /// # Errors
    /// [`TlsSettingsError::Name`] if the name is neither a DNS name nor an address.
    pub fn server_name(self, name: &str) -> Result<Self, TlsSettingsError> {
        let error = |_| TlsSettingsError::Name { name: name.to_owned() };
        let name = ServerName::try_from(name.to_owned()).map_err(error)?;
        Ok(Self { server_name: Some(name), ..self })
    }

    /// Sets how many days before the expiry of the certificate the check warns. Default: 14; 0
    /// never warns.
    pub fn warn_before_days(self, days: u16) -> Self {
        Self { warn_before: DAY * u32::from(days), ..self }
    }

    fn build(
        make: impl FnOnce(rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>) -> ClientConfig,
    ) -> Self {
        // ring, not the default of the process: the checks must not depend on what others
        // installed.
        let builder = ClientConfig::builder_with_provider(crypto_provider());
        let builder = builder.with_safe_default_protocol_versions();
        let mut config =
            make(builder.unwrap_or_else(|_| unreachable!("ring supports TLS 1.2 and 1.3")));
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), server_name: None, warn_before: DAY * 14 }
    }

    /// Makes the handshake.
    pub(in crate::health::checks) async fn handshake(
        &self,
        context: &CheckContext,
        stream: TcpStream,
        protocols: &[&[u8]],
    ) -> Result<TlsSession, CheckFailure> {
        context.set_stage("waiting for the TLS handshake");
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let address = || ServerName::IpAddress(context.address().ip().into());
        let name = self.server_name.clone().unwrap_or_else(address);
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let tls_error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls_error {
                Some(error) => {
                    CheckFailure::new(CheckFailureKind::Tls, format!("TLS handshake: {error}"))
                }
                None => CheckFailure::io("TLS handshake", &error),
            }
        })?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let not_after = certificate.and_then(|certificate| not_after(certificate));
        let warning = not_after.and_then(|time| self.expiry_warning(time, SystemTime::now()));
        Ok(TlsSession { stream, warning })
    }

    fn expiry_warning(&self, not_after: SystemTime, now: SystemTime) -> Option<String> {
        let left = not_after.duration_since(now).unwrap_or(Duration::ZERO);
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

/// Parses the certificates in a PEM text; there must be one.
fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsSettingsError> {
    let pem_error = |reason: String| TlsSettingsError::Pem { reason };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error: rustls::pki_types::pem::Error| pem_error(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(pem_error("the text has no certificate".into())),
        false => Ok(certificates),
    }
}

fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Returns the end of the validity of a certificate; `None` if the certificate is malformed.
fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A connection after its handshake.
pub(in crate::health::checks) struct TlsSession {
    pub(in crate::health::checks) stream: TlsStream<TcpStream>,
    pub(in crate::health::checks) warning: Option<String>,
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_given_in_the_last_days_of_a_certificate() {
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
    fn invalid_settings_are_refused() {
        assert!(matches!(TlsSettings::authorities(b"no PEM"), Err(TlsSettingsError::Pem { .. })));
        let no_chain = TlsSettings::unverified().client_certificate(b"no PEM", b"no PEM");
        assert!(matches!(no_chain, Err(TlsSettingsError::Pem { .. })));
        assert!(matches!(
            TlsSettings::unverified().server_name("a b"),
            Err(TlsSettingsError::Name { .. })
        ));
    }
}
