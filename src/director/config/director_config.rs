//! A director's configuration: the tables of all files together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admin::AdminConfig;
use super::announce::AnnounceConfig;
use super::config_file::{ConfigFile, DirectorConfigBuilder, read_file};
use super::document::ConfigDocument;
use super::error::{ConfigProblem, ConfigProblems, DirectorConfigError, KeyPathSegment};
use super::ipvs::IpvsConfig;
use super::listen::{ListenAddress, ServiceProtocol};
use super::log::LogConfig;
use super::notify::NotifyCommandList;
use super::origin::ConfigOrigin;
use super::packet::PacketConfig;
use super::service::ServiceConfig;
use super::sync::SyncConfig;
use super::value::HumanDuration;
use super::vrrp::VrrpConfig;
use crate::announce::ANNOUNCE_INTERFACE;
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
    pub(crate) announce: Option<AnnounceConfig>,
    pub(crate) sync: Option<SyncConfig>,
    pub(crate) ipvs: Option<IpvsConfig>,
    pub(crate) packet: Option<PacketConfig>,
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
    /// least one service or virtual router must be added.
    pub fn builder() -> DirectorConfigBuilder {
        ConfigFile::builder()
    }

    /// Reads a file and the files that it includes. The programs of its checks must exist.
    ///
    /// # Errors
    /// [`DirectorConfigError`] if a file cannot be read, or if a key or value is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, DirectorConfigError> {
        let path = path.as_ref();
        let (document, file) = read_file(path).map_err(one_error)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::from_first_file(ConfigOrigin::Text(document), file, folder)
    }

    /// Reads the files that the first one includes, relative to a folder.
    pub(super) fn from_first_file(
        origin: ConfigOrigin,
        file: ConfigFile,
        folder: &Path,
    ) -> Result<Self, DirectorConfigError> {
        let (mut included, mut errors) = (Vec::new(), Vec::new());
        for (n, pattern) in file.include.iter().enumerate() {
            let problem = |reason: String| {
                let path = [KeyPathSegment::Key("include"), KeyPathSegment::Index(n)];
                origin.locate_problem(&file, ConfigProblem::new(path, reason))
            };
            let paths = glob::glob(&folder.join(pattern).to_string_lossy())
                .map_err(|error| problem(format!("{pattern:?} is not a pattern: {error}")))?;
            let mut matches_none = true;
            for path in paths {
                let path = path.map_err(|error| problem(error.to_string()))?;
                matches_none = false;
                match read_file(&path) {
                    Ok((document, file)) => included.push((ConfigOrigin::Text(document), file)),
                    Err(refused) => errors.extend(refused),
                }
            }
            // A pattern may match no file yet; a path without wildcards names a file that must exist.
            if matches_none && !pattern.contains(['*', '?', '[']) {
                return Err(problem(format!("there is no file {pattern:?}")));
            }
        }
        if !errors.is_empty() {
            return Err(one_error(errors));
        }
        included.insert(0, (origin, file));
        for (origin, file) in &included {
            let ConfigProblems(problems) = file.validate_programs();
            let located = problems.into_iter().map(|problem| origin.locate_problem(file, problem));
            errors.extend(located);
        }
        Self::merge_files(included, errors)
    }

    /// Reads a text, which cannot include files. Programs of checks need not exist on this machine.
    ///
    /// # Errors
    /// [`DirectorConfigError::Invalid`] if a key or value is refused.
    pub fn parse(text: &str) -> Result<Self, DirectorConfigError> {
        let document = ConfigDocument::new("configuration", text);
        let file: ConfigFile = document.deserialize().map_err(one_error)?;
        if !file.include.is_empty() {
            return Err(document.locate_problem(nested_include()));
        }
        Self::merge_files(vec![(ConfigOrigin::Text(document), file)], Vec::new())
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

    /// Returns how the kernel's IPVS is used.
    pub(crate) fn ipvs(&self) -> IpvsConfig {
        self.ipvs.clone().unwrap_or_default()
    }

    /// Returns how the program in the kernel is used.
    pub(crate) fn packet(&self) -> PacketConfig {
        self.packet.clone().unwrap_or_default()
    }

    /// Returns whether services may listen on addresses that this machine does not have yet.
    pub(crate) fn has_virtual_addresses(&self) -> bool {
        !self.vrrp.is_empty() || self.announce.is_some()
    }

    /// Returns the interface of each address of `[vrrp]` and `[announce]`.
    pub(crate) fn virtual_interfaces(&self) -> BTreeMap<IpAddr, String> {
        let routers = self.vrrp.iter().flat_map(|router| {
            router.virtual_addresses().map(|address| (address, router.address_interface()))
        });
        let announced = self.announce.iter().flat_map(|announce| {
            announce.addresses().iter().map(|address| (*address, ANNOUNCE_INTERFACE.to_owned()))
        });
        routers.chain(announced).collect()
    }

    /// Returns the addresses of all services.
    pub(crate) fn listen_addresses(&self) -> BTreeSet<(ServiceProtocol, ListenAddress)> {
        let services = self.services.iter();
        let addresses = services.flat_map(|service| {
            service.listen.0.iter().map(|listen| listen.with_protocol(service.protocol))
        });
        addresses.collect()
    }

    /// Merges the first file and those that it includes, and checks that their tables fit together.
    fn merge_files(
        files: Vec<(ConfigOrigin, ConfigFile)>,
        mut errors: Vec<DirectorConfigError>,
    ) -> Result<Self, DirectorConfigError> {
        let config = Self::merge_tables(&files, &mut errors);
        // What does not fit together may only follow from an error in a table.
        if errors.is_empty() {
            config.check_together(&files, &mut errors);
        }
        DirectorConfigError::from_all(errors).map_or(Ok(config), Err)
    }

    /// Checks each file by itself, and merges their tables.
    fn merge_tables(
        files: &[(ConfigOrigin, ConfigFile)],
        errors: &mut Vec<DirectorConfigError>,
    ) -> Self {
        let mut config = Self::default();
        let (mut log, mut vrrp) = (None, None);
        for (n, (origin, file)) in files.iter().enumerate() {
            let mut problems = file.validate();
            if n > 0 && !file.include.is_empty() {
                problems.record(Err(nested_include()));
            }
            for repeated in [
                set_once("workers", &mut config.workers, &file.workers),
                set_once("drain_timeout", &mut config.drain_timeout, &file.drain_timeout),
                set_once("handover", &mut config.handover, &file.handover),
                set_once("log", &mut log, &file.log),
                set_once("admin", &mut config.admin, &file.admin),
                set_once("vrrp", &mut vrrp, &file.vrrp),
                set_once("announce", &mut config.announce, &file.announce),
                set_once("sync", &mut config.sync, &file.sync),
                set_once("ipvs", &mut config.ipvs, &file.ipvs),
                set_once("packet", &mut config.packet, &file.packet),
            ] {
                problems.record(repeated.map_err(|RepeatedKey(key)| {
                    ConfigProblem::at_key(key, format!("another file has `{key}` already"))
                }));
            }
            config.services.extend(file.services.iter().cloned());
            errors
                .extend(problems.0.into_iter().map(|problem| origin.locate_problem(file, problem)));
        }
        config.log = log.unwrap_or_default();
        config.vrrp = vrrp.unwrap_or_default().0;
        config
    }

    /// Checks that the tables of all files fit together.
    fn check_together(
        &self,
        files: &[(ConfigOrigin, ConfigFile)],
        errors: &mut Vec<DirectorConfigError>,
    ) {
        let (origin, first) = &files[0];
        if self.services.is_empty() && self.vrrp.is_empty() {
            let reason = "there is neither a [[service]] nor a [[vrrp]]: at least one is required";
            errors.push(origin.locate_problem(first, ConfigProblem::new([], reason)));
        }
        if self.sync.is_some() && self.vrrp.is_empty() {
            let owner = files.iter().find(|(_, file)| file.sync.is_some());
            let (origin, file) = owner.unwrap_or(&files[0]);
            let reason = "[sync] requires [vrrp], which decides which director is active";
            errors.push(origin.locate_problem(file, ConfigProblem::at_key("sync", reason)));
        }
        for (origin, file) in files {
            let Some(announce) = &file.announce else { continue };
            let mut problems = ConfigProblems::default();
            let path = [KeyPathSegment::Key("announce")];
            problems.record_all(&path, announce.check_together(&self.services, &self.vrrp));
            errors
                .extend(problems.0.into_iter().map(|problem| origin.locate_problem(file, problem)));
        }
        for (origin, file) in files {
            let Some(ipvs) = &file.ipvs else { continue };
            let mut problems = ConfigProblems::default();
            let path = [KeyPathSegment::Key("ipvs")];
            problems.record_all(&path, ipvs.validate(!self.vrrp.is_empty()));
            errors
                .extend(problems.0.into_iter().map(|problem| origin.locate_problem(file, problem)));
        }
        let ipvs = self.ipvs();
        if self.packet().has_check_marks(&ipvs.settings().check_mark_range()) {
            // The marks of both by default are different ones.
            let table = |file: &ConfigFile| match (&file.packet, &file.ipvs) {
                (Some(_), _) => Some("packet"),
                (None, Some(_)) => Some("ipvs"),
                (None, None) => None,
            };
            let mut tables =
                files.iter().filter_map(|(origin, file)| Some((origin, file, table(file)?)));
            if let Some((origin, file, table)) = tables.next() {
                let reason = "[ipvs] and [packet] have the same firewall marks for their checks";
                let path = [KeyPathSegment::Key(table), KeyPathSegment::Key("check_marks")];
                errors.push(origin.locate_problem(file, ConfigProblem::new(path, reason)));
            }
        }
        let mut known = KnownServices::default();
        let routed = self.services.iter().flat_map(|ServiceConfig { tcp, .. }| {
            tcp.services_by_name().map(|(_, service)| service).chain(tcp.service_without_tls())
        });
        known.routed_names = routed.map(String::as_str).collect();
        for (origin, file) in files {
            let mut problems = ConfigProblems::default();
            for (n, service) in file.services.iter().enumerate() {
                let path = [KeyPathSegment::Key("service"), KeyPathSegment::Index(n)];
                let added = known.add_service(service, &self.services);
                problems.record(added.map_err(|problem| problem.prefixed(&path)));
                for listen in &service.listen.0 {
                    let checked = ipvs.validate_mark(listen);
                    problems.record(checked.map_err(|problem| problem.prefixed(&path)));
                }
            }
            let tables = [
                ("admin", file.admin.as_ref().map(|admin| admin.listen)),
                ("sync", file.sync.as_ref().map(|sync| sync.listen)),
            ];
            for (table, listen) in tables {
                let Some(listen) = listen else { continue };
                let (protocol, listen) = (ServiceProtocol::Tcp, ListenAddress::from(listen));
                let added = known.add_listener(protocol, listen, format!("[{table}]"));
                let path = [KeyPathSegment::Key(table)];
                problems.record(added.map_err(|problem| problem.prefixed(&path)));
            }
            errors
                .extend(problems.0.into_iter().map(|problem| origin.locate_problem(file, problem)));
        }
    }

    /// Returns what is allowed, and seldom meant: a service without servers, servers that no connection
    /// reaches, settings of a listener without a listener, a server that is its own listener, a listener
    /// on port 0, a service whose packets pass no netfilter, servers of direct routing or of tunnels that
    /// are not checked at the virtual address, a program of a `notify` key that cannot start now. The
    /// director logs each when the configuration is applied. Reads the beginning of each program's file.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for service in &self.services {
            let name = &service.name;
            let has_servers = !service.servers.is_empty() || service.discovery.is_some();
            match service.only_routes() {
                true if has_servers => warnings.push(format!(
                    "service {name}: its servers get no connection: `server_names` lead each one to \
                     another service"
                )),
                false if !has_servers => warnings
                    .push(format!("service {name} has no servers: it refuses every client")),
                _ => {}
            }
            let unused = service.unused_listener_keys();
            if !unused.is_empty() {
                warnings.push(format!(
                    "service {name} has no `listen`: its {} {} no effect, those of the service that leads \
                     here count",
                    unused.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
                    if unused.len() == 1 { "has" } else { "have" },
                ));
            }
            for listen in &service.listen.0 {
                let ListenAddress::Address(address) = listen else { continue };
                if address.port() == 0 {
                    warnings.push(format!(
                        "service {name} listens on {listen}: port 0 is another free port at each start"
                    ));
                }
                let mut servers = service.servers.iter().map(|server| server.address);
                // A server with port 0 has the port that the client connects to.
                let is_own = |server: &SocketAddr| {
                    let port = if server.port() == 0 { address.port() } else { server.port() };
                    port != 0 && SocketAddr::new(server.ip(), port) == *address
                };
                if let Some(server) = servers.find(is_own) {
                    warnings.push(format!(
                        "service {name}: server {server} is the address that the service listens on: \
                         it would connect to itself"
                    ));
                }
            }
            warnings.extend(service.own_address_warning());
            if service.engines().contains(&super::EngineKind::Packet) {
                warnings.push(format!(
                    "service {name}: packets that the engine `packet` carries do not pass netfilter: rules of \
                     nftables and iptables and connection tracking for forwarded packets do not see them"
                ));
            }
            let owner = format!("service {name}");
            warnings.extend(missing_programs(&owner, service.notify_commands()));
            for server in &service.servers {
                let owner = format!("service {name}, server {}", server.address);
                warnings.extend(missing_programs(&owner, server.notify_commands()));
            }
        }
        for router in &self.vrrp {
            let owner = format!("virtual router {}", router.router_name());
            let commands = router.notify_commands().map(|(key, _, commands)| (key, commands));
            warnings.extend(missing_programs(&owner, commands));
        }
        warnings
    }
}

/// Returns a warning for each program of these keys that cannot start.
fn missing_programs<'a>(
    owner: &str,
    keys: impl Iterator<Item = (&'static str, &'a NotifyCommandList)>,
) -> Vec<String> {
    let missing = keys.flat_map(|(key, commands)| {
        commands.missing_programs().map(move |error| format!("{owner}: {key}: {error}"))
    });
    missing.collect()
}

fn one_error(errors: Vec<DirectorConfigError>) -> DirectorConfigError {
    DirectorConfigError::from_all(errors)
        .unwrap_or_else(|| unreachable!("a text without errors is deserialized"))
}

/// The names and listeners of the tables of all files.
#[derive(Default)]
struct KnownServices<'a> {
    names: BTreeSet<&'a str>,
    /// By protocol and port; Unix sockets and marks have port 0.
    listeners: BTreeMap<(ServiceProtocol, u16), Vec<(ListenAddress, String)>>,
    /// The services that `server_names` and `without_tls` lead to.
    routed_names: BTreeSet<&'a str>,
}

impl<'a> KnownServices<'a> {
    /// Adds a listener; refuses one that the system would refuse beside those before.
    fn add_listener(
        &mut self,
        protocol: ServiceProtocol,
        listen: ListenAddress,
        owner: String,
    ) -> Result<(), ConfigProblem> {
        let port = match &listen {
            ListenAddress::Address(address) => address.port(),
            ListenAddress::Unix(_) | ListenAddress::Mark(_) => 0,
        };
        let others = self.listeners.entry((protocol, port)).or_default();
        if let Some((other, previous)) = others.iter().find(|(other, _)| other.overlaps(&listen)) {
            let reason = match *other == listen {
                true => format!("{previous} listens on {listen} too"),
                false => format!("{listen} overlaps {other}, on which {previous} listens"),
            };
            return Err(ConfigProblem::at_key("listen", reason));
        }
        others.push((listen, owner));
        Ok(())
    }

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
            let owner = format!("service {name:?}");
            let (protocol, listen) = listen.with_protocol(service.protocol);
            self.add_listener(protocol, listen, owner)?;
        }
        if service.listen.0.is_empty() && !self.routed_names.contains(name) {
            let reason =
                "the service has no `listen`, and no `server_names` or `without_tls` lead to it";
            return problem("name", reason.to_owned());
        }
        let by_name = service.tcp.services_by_name();
        let by_name =
            by_name.map(|(pattern, name)| ("server_names", format!("{pattern:?} "), name));
        let without_tls = service.tcp.service_without_tls();
        let without_tls = without_tls.map(|name| ("without_tls", String::new(), name));
        for (key, pattern, name) in by_name.chain(without_tls) {
            let target = services.iter().find(|service| service.name == *name);
            let reason = match target {
                None => {
                    let names = services.iter().map(|service| &*service.name);
                    let suggestion = suggest(name, names)
                        .map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
                    format!("{pattern}leads to service {name:?}, which does not exist{suggestion}")
                }
                Some(target) if target.protocol != ServiceProtocol::Tcp => format!(
                    "{pattern}leads to service {name:?}, which is a UDP service: a TCP service is \
                     required"
                ),
                Some(_) => continue,
            };
            let path = [KeyPathSegment::Key("tcp"), KeyPathSegment::Key(key)];
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
