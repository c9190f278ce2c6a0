//! The tables of a single configuration file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::admin::AdminConfig;
use super::document::ConfigDocument;
use super::error::{ConfigProblem, DirectorConfigError, KeyPathSegment};
use super::log::LogConfig;
use super::service::ServiceConfig;
use super::sync::SyncConfig;
use super::table::{Tables, config_table};
use super::value::{HumanDuration, OneOrMany};
use super::vrrp::{self, VrrpConfig};
use crate::forward::validate_workers;

config_table! {
/// A builder of a [`DirectorConfig`](crate::director::DirectorConfig).
builder DirectorConfigBuilder;

/// The keys and tables at the top of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// The virtual services. Default: none; all files together must have at least one.
    #[setter(service)]
    #[serde(default, rename = "service")]
    pub(super) services: Tables<ServiceConfig>,
    /// The virtual routers, which make this director one of an active/standby pair. Default: none.
    pub(super) vrrp: Option<OneOrMany<VrrpConfig>>,
    /// State synchronization to the standby. Default: none.
    pub(super) sync: Option<SyncConfig>,
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
            sync: None,
        };
        DirectorConfigBuilder { table }
    }

    /// Checks each table by itself.
    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        if let Some(workers) = self.workers {
            validate_workers(workers).map_err(|error| ConfigProblem::of_setting(error, &[]))?;
        }
        for (n, service) in self.services.iter().enumerate() {
            let path = [KeyPathSegment::Key("service"), KeyPathSegment::Index(n)];
            service.validate().map_err(|problem| problem.prefixed(&path))?;
        }
        if let Some(admin) = &self.admin {
            let path = [KeyPathSegment::Key("admin")];
            admin.validate().map_err(|problem| problem.prefixed(&path))?;
        }
        let Some(OneOrMany(routers)) = &self.vrrp else { return Ok(()) };
        vrrp::validate_all(routers).map_err(|(n, problem)| {
            problem.prefixed(&[KeyPathSegment::Key("vrrp"), KeyPathSegment::Index(n)])
        })
    }
}

impl ConfigFile {
    /// Refuses programs of checks that this machine cannot start.
    pub(super) fn validate_programs(&self) -> Result<(), ConfigProblem> {
        for (n, service) in self.services.iter().enumerate() {
            let path = [KeyPathSegment::Key("service"), KeyPathSegment::Index(n)];
            service.validate_programs().map_err(|problem| problem.prefixed(&path))?;
        }
        let routers = self.vrrp.iter().flat_map(|OneOrMany(routers)| routers);
        for (n, router) in routers.enumerate() {
            let path = [KeyPathSegment::Key("vrrp"), KeyPathSegment::Index(n)];
            router.validate_programs().map_err(|problem| problem.prefixed(&path))?;
        }
        Ok(())
    }
}

pub(super) fn read_file(path: &Path) -> Result<(ConfigDocument, ConfigFile), DirectorConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| DirectorConfigError::Read { path: path.to_owned(), source })?;
    let document = ConfigDocument::new(path.display().to_string(), text);
    let file = document.deserialize()?;
    Ok((document, file))
}
