//! A director's configuration: the tables of all files together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admin::AdminConfig;
use super::config_file::{ConfigFile, DirectorConfigBuilder, read_file};
use super::document::ConfigDocument;
use super::error::{ConfigProblem, DirectorConfigError, KeyPathSegment};
use super::listen::{ListenAddress, ServiceProtocol};
use super::log::LogConfig;
use super::origin::ConfigOrigin;
use super::service::ServiceConfig;
use super::sync::SyncConfig;
use super::value::HumanDuration;
use super::vrrp::VrrpConfig;
use crate::scheduler::suggest;

/// A director's configuration: from Rust by [`builder`](Self::builder), or from a TOML file and the files
/// that it includes.
///
/// Both have the same keys and the same checks. In Rust a service may have a
/// [scheduler](super::SchedulerConfig::custom), [checks](super::CheckConfig::custom) and a
/// [callback](super::ServiceConfigBuilder::on_end) of the program besides.
///
/// # In TOML
/// Unknown keys and values that are not allowed are errors, which name the file, the line, the
/// column and the key, and suggest the closest known name. In strings, `${NAME}` is replaced by an
/// environment variable, `${NAME:-default}` by a default if the variable is not set, and `$${` by
/// `${`.
///
/// `include = ["services/*.toml"]` reads more files, in the order of their names, relative to the
/// folder of the first file. They add services, and tables that no other file has.
///
/// The file `docs/configuration.md` of this crate lists all keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectorConfig {
    /// The number of worker threads, which all services share that have no `workers` of their own.
    pub(crate) workers: Option<usize>,
    /// How long connections may go on when their listener is closed.
    pub(crate) drain_timeout: Option<HumanDuration>,
    /// The path of the socket through which a successor takes over the listeners.
    pub(crate) handover: Option<PathBuf>,
    pub(crate) log: LogConfig,
    pub(crate) admin: Option<AdminConfig>,
    pub(crate) services: Vec<ServiceConfig>,
    pub(crate) vrrp: Vec<VrrpConfig>,
    pub(crate) sync: Option<SyncConfig>,
}

const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

impl DirectorConfigBuilder {
    /// Builds the configuration, with the checks that a TOML file has. It reads the files of `include`,
    /// relative to the working directory, and those that health checks name; it opens no socket.
    ///
    /// # Errors
    /// [`DirectorConfigError::Refused`] names the key of a value that is refused, such as
    /// `service.web.server.10.0.0.1:80.weight`. The other variants are about an included file.
    pub fn build(self) -> Result<DirectorConfig, DirectorConfigError> {
        DirectorConfig::from_first_file(ConfigOrigin::Program, self.into(), Path::new(""))
    }
}

impl DirectorConfig {
    /// Returns a builder of a configuration, whose setters are the keys at the top of a TOML file. At
    /// least one service must be added.
    pub fn builder() -> DirectorConfigBuilder {
        ConfigFile::builder()
    }

    /// Reads a file and the files that it includes. The programs of its checks must exist.
    ///
    /// # Errors
    /// [`DirectorConfigError`] if a file cannot be read, or if a key or value is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, DirectorConfigError> {
        let path = path.as_ref();
        let (document, file) = read_file(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::from_first_file(ConfigOrigin::Text(document), file, folder)
    }

    /// Reads the files that the first one includes, relative to a folder.
    pub(super) fn from_first_file(
        origin: ConfigOrigin,
        file: ConfigFile,
        folder: &Path,
    ) -> Result<Self, DirectorConfigError> {
        let mut included = Vec::new();
        for (n, pattern) in file.include.iter().enumerate() {
            let problem = |reason: String| {
                let path = [KeyPathSegment::Key("include"), KeyPathSegment::Index(n)];
                origin.locate_problem(&file, ConfigProblem::new(path, reason))
            };
            let paths = glob::glob(&folder.join(pattern).to_string_lossy())
                .map_err(|error| problem(format!("{pattern:?} is not a pattern: {error}")))?;
            let previous_count = included.len();
            for path in paths {
                let path = path.map_err(|error| problem(error.to_string()))?;
                let (document, file) = read_file(&path)?;
                included.push((ConfigOrigin::Text(document), file));
            }
            // A pattern may match no file yet; a path without wildcards names a file that must exist.
            if included.len() == previous_count && !pattern.contains(['*', '?', '[']) {
                return Err(problem(format!("there is no file {pattern:?}")));
            }
        }
        included.insert(0, (origin, file));
        for (origin, file) in &included {
            file.validate_programs().map_err(|problem| origin.locate_problem(file, problem))?;
        }
        Self::merge_files(included)
    }

    /// Reads a text, which cannot include files. Programs of checks need not exist on this machine.
    ///
    /// # Errors
    /// [`DirectorConfigError::Invalid`] if a key or value is refused.
    pub fn parse(text: &str) -> Result<Self, DirectorConfigError> {
        let document = ConfigDocument::new("configuration", text);
        let file: ConfigFile = document.deserialize()?;
        if !file.include.is_empty() {
            return Err(document.locate_problem(nested_include()));
        }
        Self::merge_files(vec![(ConfigOrigin::Text(document), file)])
    }

    /// Returns what the program is to log.
    #[must_use]
    pub fn log(&self) -> &LogConfig {
        &self.log
    }

    /// Returns whether the director is one of an active/standby pair: whether there is a `[vrrp]`
    /// table.
    #[must_use]
    pub fn has_standby(&self) -> bool {
        !self.vrrp.is_empty()
    }

    /// Returns how long connections may go on when the director stops or their listener is closed.
    /// Default: 10 s.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout.map_or(DEFAULT_DRAIN_TIMEOUT, |HumanDuration(timeout)| timeout)
    }

    /// Returns the path of the socket through which a successor takes over the listeners.
    #[must_use]
    pub fn handover(&self) -> Option<&Path> {
        self.handover.as_deref()
    }

    /// Returns the addresses of all services.
    pub(crate) fn listen_addresses(&self) -> BTreeSet<(ServiceProtocol, ListenAddress)> {
        let addresses_of = |service: &ServiceConfig| {
            let protocol = service.protocol;
            service.listen.0.clone().into_iter().map(move |listen| (protocol, listen))
        };
        self.services.iter().flat_map(addresses_of).collect()
    }

    /// Merges the first file and those that it includes, and checks that their tables fit together.
    fn merge_files(files: Vec<(ConfigOrigin, ConfigFile)>) -> Result<Self, DirectorConfigError> {
        let mut config = Self::default();
        let (mut log, mut vrrp) = (None, None);
        for (n, (origin, file)) in files.iter().enumerate() {
            if n > 0 && !file.include.is_empty() {
                return Err(origin.locate_problem(file, nested_include()));
            }
            file.validate().map_err(|problem| origin.locate_problem(file, problem))?;
            let repeated = |key: RepeatedKey| {
                let reason = format!("another file has `{}` already", key.0);
                origin.locate_problem(file, ConfigProblem::at_key(key.0, reason))
            };
            set_once("workers", &mut config.workers, &file.workers).map_err(repeated)?;
            set_once("drain_timeout", &mut config.drain_timeout, &file.drain_timeout)
                .map_err(repeated)?;
            set_once("handover", &mut config.handover, &file.handover).map_err(repeated)?;
            set_once("log", &mut log, &file.log).map_err(repeated)?;
            set_once("admin", &mut config.admin, &file.admin).map_err(repeated)?;
            set_once("vrrp", &mut vrrp, &file.vrrp).map_err(repeated)?;
            set_once("sync", &mut config.sync, &file.sync).map_err(repeated)?;
            config.services.extend(file.services.iter().cloned());
        }
        config.log = log.unwrap_or_default();
        config.vrrp = vrrp.unwrap_or_default().0;
        let (origin, first) = &files[0];
        if config.services.is_empty() {
            let reason = "there is no [[service]]: at least one is required";
            return Err(origin.locate_problem(first, ConfigProblem::new([], reason)));
        }
        if config.sync.is_some() && config.vrrp.is_empty() {
            let owner = files.iter().find(|(_, file)| file.sync.is_some());
            let (origin, file) = owner.unwrap_or(&files[0]);
            let reason = "[sync] requires [vrrp], which decides which director is active";
            return Err(origin.locate_problem(file, ConfigProblem::at_key("sync", reason)));
        }
        let mut known = KnownServices::default();
        let routed = config.services.iter().flat_map(|service| service.tcp.routed_services());
        known.routed_names = routed.map(|(_, service)| service.as_str()).collect();
        for (origin, file) in &files {
            for (n, service) in file.services.iter().enumerate() {
                let path = [KeyPathSegment::Key("service"), KeyPathSegment::Index(n)];
                known
                    .add_service(service, &config.services)
                    .map_err(|problem| origin.locate_problem(file, problem.prefixed(&path)))?;
            }
        }
        Ok(config)
    }
}

/// The names and listeners of the services of all files.
#[derive(Default)]
struct KnownServices<'a> {
    names: BTreeSet<&'a str>,
    listeners: BTreeMap<(&'a ListenAddress, ServiceProtocol), &'a str>,
    /// The services that `server_names` lead to.
    routed_names: BTreeSet<&'a str>,
}

impl<'a> KnownServices<'a> {
    /// Adds a service; refuses one that conflicts with those before.
    fn add_service(
        &mut self,
        service: &'a ServiceConfig,
        services: &[ServiceConfig],
    ) -> Result<(), ConfigProblem> {
        let problem = |key, reason: String| Err(ConfigProblem::at_key(key, reason));
        let name = &*service.name;
        if !self.names.insert(name) {
            return problem("name", format!("there is another service {name:?}"));
        }
        for listen in &service.listen.0 {
            // Port 0 is any free port.
            let is_any = matches!(listen, ListenAddress::Address(address) if address.port() == 0);
            let previous = self.listeners.insert((listen, service.protocol), name);
            if let Some(previous) = previous.filter(|_| !is_any) {
                return problem("listen", format!("service {previous:?} listens on {listen} too"));
            }
        }
        if service.listen.0.is_empty() && !self.routed_names.contains(name) {
            let reason = "the service has no `listen`, and no `server_names` lead to it";
            return problem("name", reason.to_owned());
        }
        for (pattern, name) in service.tcp.routed_services() {
            let target = services.iter().find(|service| service.name == *name);
            let reason = match target {
                None => {
                    let names = services.iter().map(|service| &*service.name);
                    let suggestion = suggest(name, names)
                        .map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
                    format!(
                        "{pattern:?} leads to service {name:?}, which does not exist{suggestion}"
                    )
                }
                Some(target) if target.protocol != ServiceProtocol::Tcp => format!(
                    "{pattern:?} leads to service {name:?}, which is a UDP service: a TCP service is \
                     required"
                ),
                Some(_) => continue,
            };
            let path = [KeyPathSegment::Key("tcp"), KeyPathSegment::Key("server_names")];
            return Err(ConfigProblem::new(path, reason));
        }
        Ok(())
    }
}

fn nested_include() -> ConfigProblem {
    ConfigProblem::at_key("include", "only the first file may include other files")
}

/// The key of a value that two files have.
struct RepeatedKey(&'static str);

/// Copies the value of a file, of which there may be one in all files together.
fn set_once<T: Clone>(
    key: &'static str,
    merged: &mut Option<T>,
    value: &Option<T>,
) -> Result<(), RepeatedKey> {
    match (&merged, value) {
        (Some(_), Some(_)) => Err(RepeatedKey(key)),
        (_, None) => Ok(()),
        (None, Some(value)) => {
            *merged = Some(value.clone());
            Ok(())
        }
    }
}
