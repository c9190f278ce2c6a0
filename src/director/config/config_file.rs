//! What one file can hold.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::admin::AdminConfig;
use super::document::ConfigDocument;
use super::error::{ConfigProblem, DirectorConfigError, KeyPathSegment};
use super::log::LogConfig;
use super::service::ServiceConfig;
use super::sync::SyncConfig;
use super::value::{HumanDuration, OneOrMany};
use super::vrrp::{self, VrrpConfig};

/// What stands in one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    #[serde(default)]
    pub(super) include: Vec<String>,
    pub(super) workers: Option<NonZeroUsize>,
    pub(super) drain_timeout: Option<HumanDuration>,
    pub(super) handover: Option<PathBuf>,
    pub(super) log: Option<LogConfig>,
    pub(super) admin: Option<AdminConfig>,
    #[serde(default, rename = "service")]
    pub(super) services: Vec<ServiceConfig>,
    pub(super) vrrp: Option<OneOrMany<VrrpConfig>>,
    pub(super) sync: Option<SyncConfig>,
}

impl ConfigFile {
    /// What each part of it says by itself.
    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        for (n, service) in self.services.iter().enumerate() {
            let at = [KeyPathSegment::Key("service"), KeyPathSegment::Index(n)];
            service.validate().map_err(|fault| fault.prefixed(&at))?;
        }
        if let Some(admin) = &self.admin {
            admin.validate().map_err(|fault| fault.prefixed(&[KeyPathSegment::Key("admin")]))?;
        }
        let check = |all| {
            let at = |n| [KeyPathSegment::Key("vrrp"), KeyPathSegment::Index(n)];
            vrrp::validate_all(all).map_err(|(n, fault)| fault.prefixed(&at(n)))
        };
        self.vrrp.as_ref().map_or(Ok(()), check)
    }
}

pub(super) fn read_file(path: &Path) -> Result<(ConfigDocument, ConfigFile), DirectorConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| DirectorConfigError::Read { path: path.to_owned(), source })?;
    let document = ConfigDocument::new(path.display().to_string(), text);
    let part = document.deserialize()?;
    Ok((document, part))
}
