//! What an operator writes down, in TOML.

mod pair;
mod service;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

pub(super) use self::pair::{SyncConfig, VrrpConfig};
pub(super) use self::service::{Protocol, ServiceConfig};

/// The configuration of a director.
///
/// Strict: a key that is not known is an error, as is whatever cannot be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads for each service.
    pub(super) workers: Option<NonZeroUsize>,
    pub(super) admin: Option<AdminConfig>,
    #[serde(default, rename = "service")]
    pub(super) services: Vec<ServiceConfig>,
    pub(super) vrrp: Option<VrrpConfig>,
    pub(super) sync: Option<SyncConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminConfig {
    pub(super) listen: SocketAddr,
}

/// What is wrong with a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no TOML, or not what a director understands; with line, column and key.
    #[error("{}", text.trim_end())]
    Toml {
        /// Where and what.
        text: String,
    },
    /// Each part is sound, and the whole is not.
    #[error("{place}: {what}")]
    Unsound {
        /// The table and the key.
        place: String,
        /// What is wrong.
        what: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the place.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`ConfigError`] names the place.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error: toml::de::Error| ConfigError::Toml { text: error.to_string() })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.services.is_empty() {
            return Err(unsound("service", "there is none, and nothing to do"));
        }
        let (mut names, mut listeners) = (BTreeSet::new(), BTreeSet::new());
        for service in &self.services {
            if !names.insert(&service.name) {
                return Err(unsound(&format!("service {:?}", service.name), "is there twice"));
            }
            if !listeners.insert((service.listen, service.protocol)) {
                let what = format!("another service listens on {} already", service.listen);
                return Err(unsound(&format!("service {:?}, listen", service.name), &what));
            }
            service.check()?;
        }
        if let Some(admin) = self.admin.as_ref().filter(|admin| !admin.listen.ip().is_loopback()) {
            let what = format!("{} is not of this machine alone: use 127.0.0.1", admin.listen);
            return Err(unsound("[admin], listen", &what));
        }
        match (&self.vrrp, &self.sync) {
            (None, Some(_)) => Err(unsound("[sync]", "without [vrrp] there is no standby")),
            (Some(vrrp), _) => vrrp.check(),
            (None, None) => Ok(()),
        }
    }
}

fn unsound(place: &str, what: &str) -> ConfigError {
    ConfigError::Unsound { place: place.to_owned(), what: what.to_owned() }
}

/// A length of time: `"500ms"`, `"1s"`, `"5m"`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}, as in \"500ms\"")))
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// What says by itself what is wrong with it.
fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;
