//! What an operator writes down, in TOML.

mod admin;
mod check;
mod document;
mod ejection;
mod servers;
mod service;
mod sync;
mod tcp;
mod udp;
mod value;
mod vrrp;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

pub(crate) use self::admin::AdminConfig;
pub use self::admin::{LogConfig, LogFormat, LogLevel};
use self::document::{Document, Fault, Step};
pub use self::servers::RealServer;
pub(crate) use self::servers::{DiscoveryConfig, Origin};
pub(crate) use self::service::{Listen, Protocol, ServiceConfig};
pub(crate) use self::sync::SyncConfig;
use self::value::Several;
pub(crate) use self::value::{Hidden, Time};
pub(crate) use self::vrrp::{TrackConfig, VrrpConfig};

/// The configuration of a director, from a file and those that it includes.
///
/// Strict: a key that is not known is an error, as is whatever cannot be; each names the file, the
/// line, the column and the key, and what may have been meant. In strings, `${NAME}` stands for an
/// environment variable, `${NAME:-otherwise}` for one that may be missing, and `$${` for `${`.
///
/// `include = ["services/*.toml"]` reads more files, in the order of their names, from the folder of
/// the first; they add services, or tables that are not there yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Threads for each service.
    pub(crate) workers: Option<NonZeroUsize>,
    /// How long connections may take to end by themselves, when their listener goes.
    pub(crate) drain_timeout: Option<Time>,
    /// Where a successor finds the listeners.
    pub(crate) handover: Option<PathBuf>,
    pub(crate) log: LogConfig,
    pub(crate) admin: Option<AdminConfig>,
    pub(crate) services: Vec<ServiceConfig>,
    pub(crate) vrrp: Vec<VrrpConfig>,
    pub(crate) sync: Option<SyncConfig>,
}

/// How long connections may take to end, unless that is said.
const DRAIN: Duration = Duration::from_secs(10);

/// What stands in one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default)]
    include: Vec<String>,
    workers: Option<NonZeroUsize>,
    drain_timeout: Option<Time>,
    handover: Option<PathBuf>,
    log: Option<LogConfig>,
    admin: Option<AdminConfig>,
    #[serde(default, rename = "service")]
    services: Vec<ServiceConfig>,
    vrrp: Option<Several<VrrpConfig>>,
    sync: Option<SyncConfig>,
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

    /// What the program is to write about itself.
    #[must_use]
    pub fn log(&self) -> &LogConfig {
        &self.log
    }

    /// Is it one of an active and a standby director?
    #[must_use]
    pub fn has_standby(&self) -> bool {
        !self.vrrp.is_empty()
    }

    /// How long connections may take to end by themselves, when the director stops or a listener is
    /// taken away. Default: 10 s.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout.map_or(DRAIN, |Time(time)| time)
    }

    /// The path of the socket by which a successor takes the listeners over, if there is to be one.
    #[must_use]
    pub fn handover(&self) -> Option<&Path> {
        self.handover.as_deref()
    }

    /// The addresses of all services.
    pub(crate) fn listens(&self) -> BTreeSet<(Protocol, Listen)> {
        let of = |service: &ServiceConfig| {
            let protocol = service.protocol;
            service.listen.0.clone().into_iter().map(move |listen| (protocol, listen))
        };
        self.services.iter().flat_map(of).collect()
    }

    /// Puts the files together, of which the first may include others.
    fn whole(parts: Vec<(Document, Part)>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let (mut log, mut vrrp) = (None, None);
        for (place, (document, part)) in parts.iter().enumerate() {
            if place > 0 && !part.include.is_empty() {
                return Err(document.fault(nested()));
            }
            part.check().map_err(|fault| document.fault(fault))?;
            let twice =
                |key| document.fault(Fault::new([Step::Key(key)], "another file has this already"));
            put(&mut config.workers, &part.workers).map_err(|()| twice("workers"))?;
            put(&mut config.drain_timeout, &part.drain_timeout)
                .map_err(|()| twice("drain_timeout"))?;
            put(&mut config.handover, &part.handover).map_err(|()| twice("handover"))?;
            put(&mut log, &part.log).map_err(|()| twice("log"))?;
            put(&mut config.admin, &part.admin).map_err(|()| twice("admin"))?;
            put(&mut vrrp, &part.vrrp).map_err(|()| twice("vrrp"))?;
            put(&mut config.sync, &part.sync).map_err(|()| twice("sync"))?;
            config.services.extend(part.services.iter().cloned());
        }
        config.log = log.unwrap_or_default();
        config.vrrp = vrrp.unwrap_or_default().0;
        let (first, _) = &parts[0];
        if config.services.is_empty() {
            return Err(first.fault(Fault::new([], "there is no [[service]], and nothing to do")));
        }
        if config.sync.is_some() && config.vrrp.is_empty() {
            let what = "without [vrrp] there is no standby";
            let with = parts.iter().find(|(_, part)| part.sync.is_some());
            let document = with.map_or(first, |(document, _)| document);
            return Err(document.fault(Fault::new([Step::Key("sync")], what)));
        }
        let mut known = Known::default();
        let routed = config.services.iter().flat_map(|service| service.tcp.routes());
        known.routed = routed.map(String::as_str).collect();
        for (document, part) in &parts {
            for (n, service) in part.services.iter().enumerate() {
                let at = [Step::Key("service"), Step::Nth(n)];
                let fits = known.fits(service, &config.services);
                fits.map_err(|fault| document.fault(fault.below(&at)))?;
            }
        }
        Ok(config)
    }
}

/// What there is in all files together.
#[derive(Default)]
struct Known<'a> {
    names: BTreeSet<&'a str>,
    listeners: BTreeMap<(&'a Listen, Protocol), &'a str>,
    /// Services that others lead to.
    routed: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    /// Does a service fit to all others?
    fn fits(&mut self, service: &'a ServiceConfig, all: &[ServiceConfig]) -> Result<(), Fault> {
        let wrong = |key, what: String| Err(Fault::new([Step::Key(key)], what));
        let name = &*service.name;
        if !self.names.insert(name) {
            return wrong("name", format!("there is a service {name:?} already"));
        }
        for listen in &service.listen.0 {
            let is_any = matches!(listen, Listen::Address(address) if address.port() == 0);
            let other = self.listeners.insert((listen, service.protocol), name);
            if let Some(other) = other.filter(|_| !is_any) {
                return wrong("listen", format!("service {other:?} listens on {listen} already"));
            }
        }
        if service.listen.0.is_empty() && !self.routed.contains(name) {
            return wrong(
                "name",
                "it listens nowhere, and no `server_names` lead to it".to_owned(),
            );
        }
        for route in service.tcp.routes() {
            let target = all.iter().find(|it| it.name == *route);
            let fault = |what| Err(Fault::new([Step::Key("tcp"), Step::Key("server_names")], what));
            match target {
                None => return fault(format!("there is no service {route:?}")),
                Some(target) if target.protocol != Protocol::Tcp => {
                    return fault(format!("service {route:?} is one of UDP"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Part {
    /// What each part of it says by itself.
    fn check(&self) -> Result<(), Fault> {
        for (n, service) in self.services.iter().enumerate() {
            let at = [Step::Key("service"), Step::Nth(n)];
            service.check().map_err(|fault| fault.below(&at))?;
        }
        if let Some(admin) = &self.admin {
            admin.check().map_err(|fault| fault.below(&[Step::Key("admin")]))?;
        }
        let check = |all| {
            let at = |n| [Step::Key("vrrp"), Step::Nth(n)];
            vrrp::check_all(all).map_err(|(n, fault)| fault.below(&at(n)))
        };
        self.vrrp.as_ref().map_or(Ok(()), check)
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
fn put<T: Clone>(whole: &mut Option<T>, part: &Option<T>) -> Result<(), ()> {
    match (&whole, part) {
        (Some(_), Some(_)) => Err(()),
        (_, None) => Ok(()),
        (None, Some(part)) => {
            *whole = Some(part.clone());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
