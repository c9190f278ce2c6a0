//! Where a part of a configuration comes from, and so how an error names the place.

use super::check::CheckConfig;
use super::config_file::ConfigFile;
use super::document::ConfigDocument;
use super::error::KeyPathSegment::{self, Index, Key};
use super::error::{ConfigProblem, DirectorConfigError};
use super::value::OneOrMany;

/// The origin of the tables of a [`ConfigFile`].
#[derive(Clone, Debug)]
pub(super) enum ConfigOrigin {
    /// A TOML text: an error names the file, line and column.
    Text(ConfigDocument),
    /// A builder: an error names the key.
    Program,
}

impl ConfigOrigin {
    /// Returns the error about a value of the tables that came from here.
    pub(super) fn locate_problem(
        &self,
        file: &ConfigFile,
        problem: ConfigProblem,
    ) -> DirectorConfigError {
        match self {
            Self::Text(document) => document.locate_problem(problem),
            Self::Program => DirectorConfigError::Refused {
                key: key_names(file, &problem.path),
                reason: problem.reason,
            },
        }
    }
}

/// Returns the names on a path, as for a TOML text that has the same values.
fn key_names(file: &ConfigFile, path: &[KeyPathSegment]) -> String {
    let names = path.iter().enumerate().filter_map(|(n, segment)| match segment {
        Key(key) => Some((*key).to_owned()),
        Index(_) => item_name(file, &path[..=n]),
    });
    names.collect::<Vec<_>>().join(".")
}

/// Returns the name of the item at the end of a path: its name, its address, or its number from 1.
/// `None` for the only item of a key that needs no array.
fn item_name(file: &ConfigFile, path: &[KeyPathSegment]) -> Option<String> {
    let by_number = |n: usize| Some((n + 1).to_string());
    let routers = file.vrrp.as_ref().map_or(&[][..], |OneOrMany(routers)| routers);
    match *path {
        [Key("service"), Index(n)] => Some(file.services.get(n)?.name.clone()),
        [Key("service"), Index(service), Key("server"), Index(n)] => {
            let server = file.services.get(service)?.servers.get(n)?;
            server.name.clone().or_else(|| Some(server.address.to_string()))
        }
        [Key("service"), Index(service), Key("health"), Index(n)] => {
            match &*file.services.get(service)?.health.0 {
                [_] => None,
                checks => checks.get(n).and_then(CheckConfig::label).or_else(|| by_number(n)),
            }
        }
        [Key("vrrp"), Index(n)] => match routers {
            [_] => None,
            _ => routers.get(n)?.name.clone().or_else(|| by_number(n)),
        },
        [Key("vrrp"), Index(router), Key("track"), Index(n)] => {
            Some(routers.get(router)?.tracks.get(n)?.name.clone())
        }
        [.., Index(n)] => by_number(n),
        _ => None,
    }
}
