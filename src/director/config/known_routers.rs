//! The virtual routers of all `[[vrrp]]` tables together.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{ConfigProblem, ConfigProblems, KeyPathSegment};
use super::track::TrackConfig;
use super::vrrp::VrrpConfig;

/// Checks each table, and that the tables do not conflict. The path of a problem begins with the table's
/// index.
pub(super) fn validate_routers(routers: &[VrrpConfig]) -> ConfigProblems {
    let mut problems = ConfigProblems::default();
    let mut known = KnownRouters::default();
    for (n, router) in routers.iter().enumerate() {
        let checked = router.validate().and_then(|()| known.add(router));
        problems.record(checked.map_err(|problem| problem.prefixed(&[KeyPathSegment::Index(n)])));
    }
    problems
}

/// The virtual routers of all tables.
#[derive(Default)]
struct KnownRouters<'a> {
    /// By interface, number, and address family: a number stands for two virtual routers (RFC 9568).
    ids: BTreeSet<(&'a str, u8, bool)>,
    names: BTreeSet<String>,
    tracks: BTreeMap<&'a str, &'a TrackConfig>,
}

impl<'a> KnownRouters<'a> {
    /// Adds the virtual routers of a table; refuses those that conflict with others.
    fn add(&mut self, router: &'a VrrpConfig) -> Result<(), ConfigProblem> {
        let (id, interface) = (router.virtual_router_id, &*router.interface);
        for (is_v6, family) in [(false, "IPv4"), (true, "IPv6")] {
            if router.has_family(is_v6) && !self.ids.insert((interface, id, is_v6)) {
                let reason =
                    format!("there is another {family} virtual router {id} on {interface}");
                return Err(ConfigProblem::at_key("virtual_router_id", reason));
            }
        }
        for name in router.router_names() {
            if !self.names.insert(name.clone()) {
                let reason =
                    format!("there is another virtual router {name:?}: set another `name`");
                let key = if router.name.is_some() { "name" } else { "virtual_router_id" };
                return Err(ConfigProblem::at_key(key, reason));
            }
        }
        for track in &router.tracks {
            let previous = self.tracks.insert(&track.name, track);
            if previous.is_some_and(|previous| !previous.is_same_item(track)) {
                let reason = format!(
                    "another [[vrrp]] has a tracked item {:?} with other settings: items of one name \
                     must be the same but for `weight`",
                    track.name
                );
                return Err(ConfigProblem::at_key("track", reason));
            }
        }
        Ok(())
    }
}
