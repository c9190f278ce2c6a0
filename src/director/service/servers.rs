//! The real servers of a service: those of its configuration, changed by its operators.

use std::net::SocketAddr;

use super::state::{VirtualService, VirtualServiceState};
use crate::director::config::{RealServer, ServiceConfig};
use crate::director::diff::{self, ServerStep};
use crate::director::error::{DirectorError, ServiceError};
use crate::director::overrides::{ChangeStamp, DesiredServer, ServerEdit, ServiceOverrides};
use crate::{BackendId, SetError};

impl VirtualService {
    /// Applies configured servers and the operator's changes to the set, in one publication. On an
    /// error nothing has changed.
    pub(super) fn apply_servers(
        &self,
        state: &mut VirtualServiceState,
        servers: Vec<RealServer>,
        overrides: ServiceOverrides,
    ) -> Result<(), SetError> {
        let after = overrides.apply_to(&servers);
        let steps = diff::diff_servers(&state.overrides.apply_to(&state.config.servers), &after);
        let id = |address: &SocketAddr| BackendId::from(&*address.to_string());
        let before = self.balancer.snapshot();
        // Before the publication, with which an engine reads them.
        let methods = after.iter().map(|server| server.config.method_entry());
        state.methods.replace(methods.collect());
        self.balancer.backend_set().edit(|edit| {
            for step in &steps {
                match step {
                    ServerStep::Add(server) => {
                        edit.insert(server.config.backend_spec().admin(server.state)).map(drop)?;
                    }
                    ServerStep::Remove(address) => edit.remove(&id(address)).map(drop)?,
                    ServerStep::Weight(address, weight) => {
                        edit.set_weight(&id(address), *weight)?
                    }
                    ServerStep::Limits(address, limits) => {
                        edit.set_limits(&id(address), *limits)?
                    }
                    ServerStep::Tier(address, tier) => edit.set_tier(&id(address), *tier)?,
                    ServerStep::Zone(address, zone) => edit.set_zone(&id(address), *zone)?,
                    ServerStep::State(address, state) => {
                        edit.set_admin(&id(address), *state)?;
                    }
                }
            }
            // Servers that discovery found have no step: the operator's changes are set directly.
            let is_configured =
                |name: &str| after.iter().any(|server| server.config.address.to_string() == name);
            for (server, change) in overrides.iter().filter(|(name, _)| !is_configured(name)) {
                let id = BackendId::from(server);
                if change == state.overrides.server_change(server)
                    || !edit.backends().any(|(backend, _)| *backend.id() == id)
                {
                    continue;
                }
                if let Some(weight) = change.weight {
                    edit.set_weight(&id, weight)?;
                }
                if let Some(state) = change.state {
                    edit.set_admin(&id, state)?;
                }
                if let Some(tier) = change.tier {
                    edit.set_tier(&id, tier)?;
                }
                let limits = before.iter().find(|(backend, _)| *backend.id() == id);
                let limits = limits.map(|(_, member)| member.limits()).unwrap_or_default();
                if let Some(limits) = change.changed_limits(limits) {
                    edit.set_limits(&id, limits)?;
                }
            }
            Ok(())
        })?;
        state.config.servers = servers;
        state.overrides = overrides;
        Ok(())
    }

    /// Applies an operator's edits, all of them or none. They name a server by its address, or by a name
    /// that no other server of the service has; returns them with addresses.
    pub(in crate::director) fn edit_servers(
        &self,
        edits: &[ServerEdit],
        by: &str,
    ) -> Result<Vec<ServerEdit>, DirectorError> {
        let mut state = self.lock_state();
        let mut overrides = state.overrides.clone();
        let desired = overrides.apply_to(&state.config.servers);
        let edits = edits.iter().map(|edit| self.resolve_edit(edit, &desired, &state.config));
        let edits = edits.collect::<Result<Vec<_>, _>>()?;
        let stamp = ChangeStamp::now(by);
        edits.iter().for_each(|edit| overrides.record(edit, &stamp));
        overrides.prune_removed(&state.config.servers);
        let servers = state.config.servers.clone();
        self.apply_servers(&mut state, servers, overrides).map_err(|source| {
            DirectorError::Service { service: self.name.clone(), source: source.into() }
        })?;
        Ok(edits)
    }

    /// Returns an edit with the server's address in place of its name.
    fn resolve_edit(
        &self,
        edit: &ServerEdit,
        desired: &[DesiredServer],
        config: &ServiceConfig,
    ) -> Result<ServerEdit, DirectorError> {
        let snapshot = self.balancer.snapshot();
        let has = |server: &str| snapshot.find(&BackendId::from(server)).is_some();
        let resolve = |server: &str| {
            // The address may be written otherwise than the director writes it, as `[0:0::1]:80`.
            let address = server.parse::<SocketAddr>().map(|address| address.to_string());
            let address = address.unwrap_or_else(|_| server.to_owned());
            if has(&address) {
                return Ok(address);
            }
            let named = desired.iter().map(|desired| &desired.config);
            let named = named.filter(|config| config.name.as_deref() == Some(server));
            let named: Vec<_> = named.map(|config| config.address).collect();
            let service = self.name.clone();
            match *named {
                [address] if has(&address.to_string()) => Ok(address.to_string()),
                [_, _, ..] => {
                    let server = server.to_owned();
                    Err(DirectorError::AmbiguousServer { service, server, addresses: named })
                }
                _ => Err(DirectorError::NoServer { service, server: server.to_owned() }),
            }
        };
        match edit {
            ServerEdit::Change(server, change) => Ok(ServerEdit::Change(resolve(server)?, *change)),
            ServerEdit::Remove(server) => Ok(ServerEdit::Remove(resolve(server)?)),
            ServerEdit::Add(server) if has(&server.address.to_string()) => {
                let (service, server) = (self.name.clone(), server.address);
                Err(DirectorError::ServerExists { service, server })
            }
            ServerEdit::Add(server) => {
                let checked = match server.configuration_only_key() {
                    None => config.validate_added(server).map_err(|problem| problem.reason),
                    Some(key) => Err(format!("only the configuration may set `{key}` of a server")),
                };
                checked.map(|()| ServerEdit::Add(server.clone())).map_err(|reason| {
                    let (service, source) = (self.name.clone(), ServiceError::Config(reason));
                    DirectorError::Service { service, source }
                })
            }
        }
    }

    /// Applies those of another director's changes that are newer than the ones known here, and returns
    /// what they change.
    pub(in crate::director) fn merge_overrides(
        &self,
        others: &ServiceOverrides,
    ) -> Result<Vec<ServerEdit>, SetError> {
        let mut state = self.lock_state();
        let mut overrides = state.overrides.clone();
        let edits = overrides.merge(others);
        if overrides != state.overrides {
            let servers = state.config.servers.clone();
            self.apply_servers(&mut state, servers, overrides)?;
        }
        Ok(edits)
    }
}
