//! A director's configuration: all files together.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admin::AdminConfig;
use super::config_file::{ConfigFile, read_file};
use super::document::ConfigDocument;
use super::error::{ConfigProblem, DirectorConfigError, KeyPathSegment};
use super::listen::{ListenAddress, ServiceProtocol};
use super::log::LogConfig;
use super::service::ServiceConfig;
use super::sync::SyncConfig;
use super::value::HumanDuration;
use super::vrrp::VrrpConfig;

/// The configuration of a director, from a file and those that it includes.
///
/// Strict: a key that is not known is an error, as is whatever cannot be; each names the file, the
/// line, the column and the key, and what may have been meant. In strings, `${NAME}` stands for an
/// environment variable, `${NAME:-otherwise}` for one that may be missing, and `$${` for `${`.
///
/// `include = ["services/*.toml"]` reads more files, in the order of their names, from the folder of
/// the first; they add services, or tables that are not there yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectorConfig {
    /// Threads for each service.
    pub(crate) workers: Option<NonZeroUsize>,
    /// How long connections may take to end by themselves, when their listener goes.
    pub(crate) drain_timeout: Option<HumanDuration>,
    /// Where a successor finds the listeners.
    pub(crate) handover: Option<PathBuf>,
    pub(crate) log: LogConfig,
    pub(crate) admin: Option<AdminConfig>,
    pub(crate) services: Vec<ServiceConfig>,
    pub(crate) vrrp: Vec<VrrpConfig>,
    pub(crate) sync: Option<SyncConfig>,
}

/// How long connections may take to end, unless that is said.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

impl DirectorConfig {
    /// Reads a file, and those that it includes.
    ///
    /// # Errors
    /// [`DirectorConfigError`] names the place.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, DirectorConfigError> {
        let path = path.as_ref();
        let (document, part) = read_file(path)?;
        let mut parts = Vec::new();
        for (n, pattern) in part.include.iter().enumerate() {
            let wrong = |what: String| {
                document.locate_problem(ConfigProblem::new(
                    [KeyPathSegment::Key("include"), KeyPathSegment::Index(n)],
                    what,
                ))
            };
            let all = path.parent().unwrap_or(Path::new("")).join(pattern);
            let found =
                glob::glob(&all.to_string_lossy()).map_err(|error| wrong(error.to_string()))?;
            let before = parts.len();
            for path in found {
                let path = path.map_err(|error| wrong(error.to_string()))?;
                parts.push(read_file(&path)?);
            }
            // A pattern may find nothing yet; a file that is named is meant.
            if parts.len() == before && !pattern.contains(['*', '?', '[']) {
                return Err(wrong(format!("there is no file {pattern:?}")));
            }
        }
        parts.insert(0, (document, part));
        Self::merge_files(parts)
    }

    /// Reads a text, which cannot include any file.
    ///
    /// # Errors
    /// [`DirectorConfigError`] names the place.
    pub fn parse(text: &str) -> Result<Self, DirectorConfigError> {
        let document = ConfigDocument::new("configuration", text);
        let part: ConfigFile = document.deserialize()?;
        if !part.include.is_empty() {
            return Err(document.locate_problem(nested_include()));
        }
        Self::merge_files(vec![(document, part)])
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
        self.drain_timeout.map_or(DEFAULT_DRAIN_TIMEOUT, |HumanDuration(time)| time)
    }

    /// The path of the socket by which a successor takes the listeners over, if there is to be one.
    #[must_use]
    pub fn handover(&self) -> Option<&Path> {
        self.handover.as_deref()
    }

    /// The addresses of all services.
    pub(crate) fn listen_addresses(&self) -> BTreeSet<(ServiceProtocol, ListenAddress)> {
        let of = |service: &ServiceConfig| {
            let protocol = service.protocol;
            service.listen.0.clone().into_iter().map(move |listen| (protocol, listen))
        };
        self.services.iter().flat_map(of).collect()
    }

    /// Puts the files together, of which the first may include others.
    fn merge_files(parts: Vec<(ConfigDocument, ConfigFile)>) -> Result<Self, DirectorConfigError> {
        let mut config = Self::default();
        let (mut log, mut vrrp) = (None, None);
        for (place, (document, part)) in parts.iter().enumerate() {
            if place > 0 && !part.include.is_empty() {
                return Err(document.locate_problem(nested_include()));
            }
            part.validate().map_err(|fault| document.locate_problem(fault))?;
            let twice = |key| {
                document.locate_problem(ConfigProblem::new(
                    [KeyPathSegment::Key(key)],
                    "another file has this already",
                ))
            };
            set_once(&mut config.workers, &part.workers).map_err(|()| twice("workers"))?;
            set_once(&mut config.drain_timeout, &part.drain_timeout)
                .map_err(|()| twice("drain_timeout"))?;
            set_once(&mut config.handover, &part.handover).map_err(|()| twice("handover"))?;
            set_once(&mut log, &part.log).map_err(|()| twice("log"))?;
            set_once(&mut config.admin, &part.admin).map_err(|()| twice("admin"))?;
            set_once(&mut vrrp, &part.vrrp).map_err(|()| twice("vrrp"))?;
            set_once(&mut config.sync, &part.sync).map_err(|()| twice("sync"))?;
            config.services.extend(part.services.iter().cloned());
        }
        config.log = log.unwrap_or_default();
        config.vrrp = vrrp.unwrap_or_default().0;
        let (first, _) = &parts[0];
        if config.services.is_empty() {
            return Err(first.locate_problem(ConfigProblem::new(
                [],
                "there is no [[service]], and nothing to do",
            )));
        }
        if config.sync.is_some() && config.vrrp.is_empty() {
            let what = "without [vrrp] there is no standby";
            let with = parts.iter().find(|(_, part)| part.sync.is_some());
            let document = with.map_or(first, |(document, _)| document);
            return Err(
                document.locate_problem(ConfigProblem::new([KeyPathSegment::Key("sync")], what))
            );
        }
        let mut known = KnownServices::default();
        let routed = config.services.iter().flat_map(|service| service.tcp.routed_services());
        known.routed_names = routed.map(String::as_str).collect();
        for (document, part) in &parts {
            for (n, service) in part.services.iter().enumerate() {
                let at = [KeyPathSegment::Key("service"), KeyPathSegment::Index(n)];
                let fits = known.add_service(service, &config.services);
                fits.map_err(|fault| document.locate_problem(fault.prefixed(&at)))?;
            }
        }
        Ok(config)
    }
}

/// What there is in all files together.
#[derive(Default)]
struct KnownServices<'a> {
    names: BTreeSet<&'a str>,
    listeners: BTreeMap<(&'a ListenAddress, ServiceProtocol), &'a str>,
    /// Services that others lead to.
    routed_names: BTreeSet<&'a str>,
}

impl<'a> KnownServices<'a> {
    /// Does a service fit to all others?
    fn add_service(
        &mut self,
        service: &'a ServiceConfig,
        all: &[ServiceConfig],
    ) -> Result<(), ConfigProblem> {
        let wrong = |key, what: String| Err(ConfigProblem::new([KeyPathSegment::Key(key)], what));
        let name = &*service.name;
        if !self.names.insert(name) {
            return wrong("name", format!("there is a service {name:?} already"));
        }
        for listen in &service.listen.0 {
            let is_any = matches!(listen, ListenAddress::Address(address) if address.port() == 0);
            let other = self.listeners.insert((listen, service.protocol), name);
            if let Some(other) = other.filter(|_| !is_any) {
                return wrong("listen", format!("service {other:?} listens on {listen} already"));
            }
        }
        if service.listen.0.is_empty() && !self.routed_names.contains(name) {
            return wrong(
                "name",
                "it listens nowhere, and no `server_names` lead to it".to_owned(),
            );
        }
        for route in service.tcp.routed_services() {
            let target = all.iter().find(|it| it.name == *route);
            let fault = |what| {
                Err(ConfigProblem::new(
                    [KeyPathSegment::Key("tcp"), KeyPathSegment::Key("server_names")],
                    what,
                ))
            };
            match target {
                None => return fault(format!("there is no service {route:?}")),
                Some(target) if target.protocol != ServiceProtocol::Tcp => {
                    return fault(format!("service {route:?} is one of UDP"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn nested_include() -> ConfigProblem {
    ConfigProblem::new([KeyPathSegment::Key("include")], "only the first file includes others")
}

/// Takes over a table, of which there must be one.
fn set_once<T: Clone>(whole: &mut Option<T>, part: &Option<T>) -> Result<(), ()> {
    match (&whole, part) {
        (Some(_), Some(_)) => Err(()),
        (_, None) => Ok(()),
        (None, Some(part)) => {
            *whole = Some(part.clone());
            Ok(())
        }
    }
}
