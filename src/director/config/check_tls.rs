//! The `tls` table of a health check.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ConfigProblem;
use super::table::config_table;
use super::value::{apply_if_some, decode_hex};
use crate::health::{TlsSettings, TlsSettingsError};
use crate::regular_file::read_regular_file;

config_table! {
/// A builder of a [`CheckTlsConfig`].
builder CheckTlsConfigBuilder;

/// TLS of a health check of type `grpc`, `http` or `tls`: which certificate is accepted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct CheckTlsConfig {
    /// Which certificates are accepted without `authorities` or `pinned`. Default: `"system"`.
    #[serde(default)]
    trust: TlsTrustConfig,
    /// A PEM file of certificate authorities, at most 4 MiB: only certificates that they have signed
    /// are accepted, and those in the file themselves, such as a self-signed one. Excludes `pinned`.
    /// Default: none.
    authorities: Option<PathBuf>,
    /// The SHA-256 digest of the only certificate that is accepted, as printed by
    /// `openssl x509 -fingerprint -sha256`: 64 hexadecimal digits, with or without colons. Excludes
    /// `authorities`. Default: none.
    pinned: Option<String>,
    /// A PEM file with the client certificate that the check presents, and those of its signers;
    /// requires `key`. A reload reads it again only if a check changes. Default: none.
    certificate: Option<PathBuf>,
    /// A PEM file with the private key of `certificate`, without a password. Default: none.
    key: Option<PathBuf>,
    /// The server name that the check asks for (SNI), for which the certificate must be valid.
    /// Default: the server's address.
    name: Option<String>,
    /// Warns when the certificate ends within this many days; `0` disables the warning. Default:
    /// `14`.
    warn_before_days: Option<u16>,
}
}

/// Which certificates are accepted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TlsTrustConfig {
    /// Certificates that the authorities of this machine have signed.
    #[default]
    System,
    /// Any certificate: the check finds out that the server speaks TLS, and nothing of its identity.
    Any,
}

/// The maximum size of a file of authorities: ten times that of all authorities that a machine
/// trusts.
const MAX_AUTHORITIES_FILE: u64 = 4 << 20;

impl CheckTlsConfig {
    /// Returns a builder of TLS with the certificate authorities of this machine.
    pub fn builder() -> CheckTlsConfigBuilder {
        let table = Self {
            trust: TlsTrustConfig::default(),
            authorities: None,
            pinned: None,
            certificate: None,
            key: None,
            name: None,
            warn_before_days: None,
        };
        CheckTlsConfigBuilder { table }
    }

    pub(super) fn to_tls(&self) -> Result<TlsSettings, ConfigProblem> {
        let mut tls = match (&self.authorities, &self.pinned, self.trust) {
            (Some(_), Some(_), _) => {
                let reason = "`authorities` and `pinned` exclude each other";
                return Err(ConfigProblem::at_key("pinned", reason));
            }
            (Some(path), None, _) => read_authorities(path)
                .map_err(|reason| ConfigProblem::at_key("authorities", reason))?,
            (None, Some(digits), _) => {
                let digest =
                    decode_hex(&digits.replace(':', "")).and_then(|bytes| bytes.try_into().ok());
                TlsSettings::pinned(digest.ok_or_else(|| {
                    let reason = format!(
                        "{digits:?} is not a SHA-256 digest of 64 hexadecimal digits, as printed by \
                         `openssl x509 -fingerprint -sha256`"
                    );
                    ConfigProblem::at_key("pinned", reason)
                })?)
            }
            (None, None, TlsTrustConfig::System) => TlsSettings::system_roots()
                .map_err(|error| ConfigProblem::at_key("trust", error.to_string()))?,
            (None, None, TlsTrustConfig::Any) => TlsSettings::unverified(),
        };
        tls = match (&self.certificate, &self.key) {
            (None, None) => tls,
            (Some(certificate), Some(key)) => with_client_certificate(tls, certificate, key)?,
            (Some(_), None) => {
                let reason = "`certificate` requires `key`";
                return Err(ConfigProblem::at_key("certificate", reason));
            }
            (None, Some(_)) => {
                return Err(ConfigProblem::at_key("key", "`key` requires `certificate`"));
            }
        };
        if let Some(name) = &self.name {
            tls = tls
                .server_name(name)
                .map_err(|error| ConfigProblem::at_key("name", error.to_string()))?;
        }
        Ok(apply_if_some(tls, self.warn_before_days, TlsSettings::warn_before_days))
    }
}

fn read_authorities(path: &Path) -> Result<TlsSettings, String> {
    let pem = read_pem(path)?;
    TlsSettings::authorities(&pem).map_err(|error| format!("{}: {error}", path.display()))
}

fn with_client_certificate(
    tls: TlsSettings,
    certificate: &Path,
    key: &Path,
) -> Result<TlsSettings, ConfigProblem> {
    let read = |name: &'static str, path: &Path| {
        read_pem(path).map_err(|reason| ConfigProblem::at_key(name, reason))
    };
    let (chain, private_key) = (read("certificate", certificate)?, read("key", key)?);
    tls.client_certificate(&chain, &private_key).map_err(|error| {
        let (name, path) = match error {
            TlsSettingsError::ClientKey { .. } => ("key", key),
            _ => ("certificate", certificate),
        };
        ConfigProblem::at_key(name, format!("{}: {error}", path.display()))
    })
}

fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    read_regular_file(path, MAX_AUTHORITIES_FILE)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}
