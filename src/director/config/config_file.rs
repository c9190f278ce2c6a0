//! The tables of a single configuration file.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::admin::AdminConfig;
use super::announce::AnnounceConfig;
use super::document::ConfigDocument;
use super::error::{ConfigProblem, ConfigProblems, DirectorConfigError, KeyPathSegment};
use super::ipvs::IpvsConfig;
use super::known_routers::validate_routers;
use super::log::LogConfig;
use super::packet::PacketConfig;
use super::service::ServiceConfig;
use super::sync::SyncConfig;
use super::table::{Tables, config_table};
use super::value::{HumanDuration, OneOrMany};
use super::vrrp::VrrpConfig;
use crate::forward::validate_workers;
use crate::regular_file::read_regular_file;

config_table! {
/// A builder of a [`DirectorConfig`](crate::director::DirectorConfig).
builder DirectorConfigBuilder;

/// The keys and tables at the top of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ConfigFile {
    /// More files to read, as paths or patterns such as `"services/*.toml"`, relative to the folder
    /// of this file, in the order of their names. They add services, and tables that no other file
    /// has. Only the first file may include others. A pattern may match no file; a path must exist.
    /// Default: none.
    #[serde(default)]
    pub(super) include: Vec<String>,
    /// The number of worker threads, from 1 to 1024. All services share them, except services with
    /// `workers` of their own. A reload that changes it replaces the forwarders; existing connections
    /// keep the forwarder that they have. Default: one per CPU core.
    pub(super) workers: Option<usize>,
    /// How long existing connections may go on when the director stops or a reload closes their
    /// listener; then they are closed. Default: `"10s"`.
    pub(super) drain_timeout: Option<HumanDuration>,
    /// The path of a Unix socket through which a new director process takes over the listeners.
    /// Default: none.
    pub(super) handover: Option<PathBuf>,
    /// What the program logs. Default: an empty table.
    pub(super) log: Option<LogConfig>,
    /// The HTTP server of the admin pages. Default: none.
    pub(super) admin: Option<AdminConfig>,
    /// The virtual services. Default: none; all files together must have at least one, or a `vrrp`
    /// table, which moves the addresses of another program.
    #[setter(service)]
    #[serde(default, rename = "service")]
    pub(super) services: Tables<ServiceConfig>,
    /// The virtual routers, which make this director one of an active/standby pair. Default: none.
    pub(super) vrrp: Option<OneOrMany<VrrpConfig>>,
    /// The addresses that a routing daemon announces. Default: none.
    pub(super) announce: Option<AnnounceConfig>,
    /// State synchronization to the standby. Default: none.
    pub(super) sync: Option<SyncConfig>,
    /// The kernel's IPVS, for services that it forwards. Default: an empty table.
    pub(super) ipvs: Option<IpvsConfig>,
    /// The program in the kernel, for services with `engine = "packet"`. Default: an empty table.
    pub(super) packet: Option<PacketConfig>,
}
}

impl ConfigFile {
    /// Returns a builder of an empty file.
    pub(super) fn builder() -> DirectorConfigBuilder {
        let table = Self {
            include: Vec::new(),
            workers: None,
            drain_timeout: None,
            handover: None,
            log: None,
            admin: None,
            services: Vec::new(),
            vrrp: None,
            announce: None,
            sync: None,
            ipvs: None,
            packet: None,
        };
        DirectorConfigBuilder { table }
    }

    /// Checks each table by itself.
    pub(super) fn validate(&self) -> ConfigProblems {
        let mut problems = ConfigProblems::default();
        if let Some(workers) = self.workers {
            let checked = validate_workers(workers);
            problems.record(checked.map_err(|error| ConfigProblem::of_setting(error, &[])));
        }
        for (n, service) in self.services.iter().enumerate() {
            let path = [KeyPathSegment::Key("service"), KeyPathSegment::Index(n)];
            problems.record_all(&path, service.validate());
        }
        if let Some(admin) = &self.admin {
            let path = [KeyPathSegment::Key("admin")];
            problems.record(admin.validate().map_err(|problem| problem.prefixed(&path)));
        }
        if let Some(announce) = &self.announce {
            let path = [KeyPathSegment::Key("announce")];
            problems.record(announce.validate().map_err(|problem| problem.prefixed(&path)));
        }
        if let Some(packet) = &self.packet {
            problems.record_all(&[KeyPathSegment::Key("packet")], packet.validate());
        }
        if let Some(OneOrMany(routers)) = &self.vrrp {
            problems.record_all(&[KeyPathSegment::Key("vrrp")], validate_routers(routers));
        }
        problems
    }
}

impl ConfigFile {
    /// Refuses programs of checks that this machine cannot start.
    pub(super) fn validate_programs(&self) -> ConfigProblems {
        let mut problems = ConfigProblems::default();
        for (n, service) in self.services.iter().enumerate() {
            let path = [KeyPathSegment::Key("service"), KeyPathSegment::Index(n)];
            problems.record_all(&path, service.validate_programs());
        }
        let routers = self.vrrp.iter().flat_map(|OneOrMany(routers)| routers);
        for (n, router) in routers.enumerate() {
            let path = [KeyPathSegment::Key("vrrp"), KeyPathSegment::Index(n)];
            problems.record(router.validate_programs().map_err(|problem| problem.prefixed(&path)));
        }
        problems
    }
}

/// The largest configuration file, in bytes: a hundred thousand services fit.
const MAX_CONFIG_FILE: u64 = 16 << 20;

/// Reads a configuration file, which must be a regular file.
pub(super) fn read_file(
    path: &Path,
) -> Result<(ConfigDocument, ConfigFile), Vec<DirectorConfigError>> {
    let text = read_regular_file(path, MAX_CONFIG_FILE).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    let text =
        text.map_err(|source| vec![DirectorConfigError::Read { path: path.to_owned(), source }])?;
    let document = ConfigDocument::new(path.display().to_string(), text);
    match document.deserialize() {
        Ok(file) => Ok((document, file)),
        Err(errors) => Err(errors),
    }
}
