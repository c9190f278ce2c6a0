//! What an operator writes down, in TOML.

mod document;
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

use self::document::{Document, Fault, Step};
pub(super) use self::pair::{SyncConfig, VrrpConfig};
pub(super) use self::service::{Protocol, ServiceConfig};

/// The configuration of a director, from a file and those that it includes.
///
/// Strict: a key that is not known is an error, as is whatever cannot be; each names the file, the
/// line, the column and the key, and what may have been meant. In strings, `${NAME}` stands for an
/// environment variable, `${NAME:-otherwise}` for one that may be missing, and `$${` for `${`.
///
/// `include = ["services/*.toml"]` reads more files, in the order of their names, from the folder of
/// the first; they add services, or tables that are not there yet.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads for each service.
    pub(super) workers: Option<NonZeroUsize>,
    pub(super) admin: Option<AdminConfig>,
    pub(super) services: Vec<ServiceConfig>,
    pub(super) vrrp: Option<VrrpConfig>,
    pub(super) sync: Option<SyncConfig>,
}

/// What stands in one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default)]
    include: Vec<String>,
    workers: Option<NonZeroUsize>,
    admin: Option<AdminConfig>,
    #[serde(default, rename = "service")]
    services: Vec<ServiceConfig>,
    vrrp: Option<VrrpConfig>,
    sync: Option<SyncConfig>,
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminConfig {
    pub(super) listen: SocketAddr,
}

/// What is wrong with a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in a file cannot be.
    #[error("{file}:{line}:{column}: {}{what}{}", with_colon(key), did_you_mean(help))]
    At {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What stands there: tables and keys, with dots between them. May be empty.
        key: String,
        /// What is wrong with it.
        what: String,
        /// What may have been meant.
        help: Option<String>,
    },
}

fn with_colon(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

fn did_you_mean(help: &Option<String>) -> String {
    help.as_ref().map_or_else(String::new, |help| format!("; did you mean `{help}`?"))
}

impl Config {
    /// Reads a file, and those that it includes.
    ///
    /// # Errors
    /// [`ConfigError`] names the place.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let (document, part) = read(path)?;
        let mut parts = Vec::new();
        for (n, pattern) in part.include.iter().enumerate() {
            let wrong = |what: String| {
                document.fault(Fault::new([Step::Key("include"), Step::Nth(n)], what))
            };
            let all = path.parent().unwrap_or(Path::new("")).join(pattern);
            let found =
                glob::glob(&all.to_string_lossy()).map_err(|error| wrong(error.to_string()))?;
            let before = parts.len();
            for path in found {
                let path = path.map_err(|error| wrong(error.to_string()))?;
                parts.push(read(&path)?);
            }
            // A pattern may find nothing yet; a file that is named is meant.
            if parts.len() == before && !pattern.contains(['*', '?', '[']) {
                return Err(wrong(format!("there is no file {pattern:?}")));
            }
        }
        parts.insert(0, (document, part));
        Self::whole(parts)
    }

    /// Reads a text, which cannot include any file.
    ///
    /// # Errors
    /// [`ConfigError`] names the place.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let document = Document::new("configuration", text);
        let part: Part = document.read()?;
        if !part.include.is_empty() {
            return Err(document.fault(nested()));
        }
        Self::whole(vec![(document, part)])
    }

    /// Puts the files together, of which the first may include others.
    fn whole(parts: Vec<(Document, Part)>) -> Result<Self, ConfigError> {
        let mut config =
            Self { workers: None, admin: None, services: Vec::new(), vrrp: None, sync: None };
        let (mut names, mut listeners) = (BTreeSet::new(), BTreeSet::new());
        for (place, (document, part)) in parts.iter().enumerate() {
            if place > 0 && !part.include.is_empty() {
                return Err(document.fault(nested()));
            }
            part.check(&mut names, &mut listeners).map_err(|fault| document.fault(fault))?;
            let twice =
                |key| document.fault(Fault::new([Step::Key(key)], "another file has this already"));
            put(&mut config.workers, part.workers).map_err(|()| twice("workers"))?;
            put(&mut config.admin, part.admin.clone()).map_err(|()| twice("admin"))?;
            put(&mut config.vrrp, part.vrrp.clone()).map_err(|()| twice("vrrp"))?;
            put(&mut config.sync, part.sync.clone()).map_err(|()| twice("sync"))?;
            config.services.extend(part.services.iter().cloned());
        }
        let (first, _) = &parts[0];
        if config.services.is_empty() {
            return Err(first.fault(Fault::new([], "there is no [[service]], and nothing to do")));
        }
        if config.sync.is_some() && config.vrrp.is_none() {
            let what = "without [vrrp] there is no standby";
            let with = parts.iter().find(|(_, part)| part.sync.is_some());
            let document = with.map_or(first, |(document, _)| document);
            return Err(document.fault(Fault::new([Step::Key("sync")], what)));
        }
        Ok(config)
    }
}

impl Part {
    /// What each part of it says by itself, and that no service is there twice.
    fn check(
        &self,
        names: &mut BTreeSet<String>,
        listeners: &mut BTreeSet<(SocketAddr, Protocol)>,
    ) -> Result<(), Fault> {
        for (n, service) in self.services.iter().enumerate() {
            let at = [Step::Key("service"), Step::Nth(n)];
            let wrong = |key, what: String| Fault::new([Step::Key(key)], what).below(&at);
            if !names.insert(service.name.clone()) {
                let what = format!("there is a service {:?} already", service.name);
                return Err(wrong("name", what));
            }
            let is_any = service.listen.port() == 0;
            if !is_any && !listeners.insert((service.listen, service.protocol)) {
                let what = format!("another service listens on {} already", service.listen);
                return Err(wrong("listen", what));
            }
            service.check().map_err(|fault| fault.below(&at))?;
        }
        if let Some(admin) = self.admin.as_ref().filter(|admin| !admin.listen.ip().is_loopback()) {
            let what = format!("{} is not of this machine alone: use 127.0.0.1", admin.listen);
            return Err(Fault::new([Step::Key("admin"), Step::Key("listen")], what));
        }
        self.vrrp
            .as_ref()
            .map_or(Ok(()), |vrrp| vrrp.check().map_err(|fault| fault.below(&[Step::Key("vrrp")])))
    }
}

fn read(path: &Path) -> Result<(Document, Part), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let document = Document::new(path.display().to_string(), text);
    let part = document.read()?;
    Ok((document, part))
}

fn nested() -> Fault {
    Fault::new([Step::Key("include")], "only the first file includes others")
}

/// Takes over a table, of which there must be one.
fn put<T>(whole: &mut Option<T>, part: Option<T>) -> Result<(), ()> {
    match (whole.is_some(), part) {
        (true, Some(_)) => Err(()),
        (_, None) => Ok(()),
        (false, part) => {
            *whole = part;
            Ok(())
        }
    }
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
