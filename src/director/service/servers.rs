//! The real servers of a service: those of its configuration, changed by its operators.

use std::net::SocketAddr;

use super::state::{VirtualService, VirtualServiceState};
use crate::director::config::RealServer;
use crate::director::diff::{self, ServerStep};
use crate::director::error::{DirectorError, ServiceError};
use crate::director::overrides::{ServerEdit, ServiceOverrides};
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
            }
            Ok(())
        })?;
        state.config.servers = servers;
        state.overrides = overrides;
        Ok(())
    }

    /// Applies an operator's edits, all of them or none.
    pub(in crate::director) fn edit_servers(
        &self,
        edits: &[ServerEdit],
    ) -> Result<(), DirectorError> {
        let mut state = self.lock_state();
        let snapshot = self.balancer.snapshot();
        let has = |server: &str| snapshot.find(&BackendId::from(server)).is_some();
        let mut overrides = state.overrides.clone();
        for edit in edits {
            let service = || self.name.clone();
            match edit {
                ServerEdit::Change(server, _) | ServerEdit::Remove(server) if !has(server) => {
                    let server = server.clone();
                    return Err(DirectorError::NoServer { service: service(), server });
                }
                ServerEdit::Add(server) if server.configuration_only_key().is_some() => {
                    let key = server.configuration_only_key().unwrap_or_default();
                    let reason = format!("only the configuration may set `{key}` of a server");
                    let source = ServiceError::Config(reason);
                    return Err(DirectorError::Service { service: service(), source });
                }
                ServerEdit::Add(server) if has(&server.address.to_string()) => {
                    let server = server.address;
                    return Err(DirectorError::ServerExists { service: service(), server });
                }
                _ => overrides.record(edit),
            }
        }
        overrides.prune_removed(&state.config.servers);
        let servers = state.config.servers.clone();
        self.apply_servers(&mut state, servers, overrides).map_err(|source| {
            DirectorError::Service { service: self.name.clone(), source: source.into() }
        })
    }

    /// Applies those of another director's changes that are newer than the ones known here.
    pub(in crate::director) fn merge_overrides(
        &self,
        others: &ServiceOverrides,
    ) -> Result<(), SetError> {
        let mut state = self.lock_state();
        let mut overrides = state.overrides.clone();
        if !overrides.merge(others) {
            return Ok(());
        }
        let servers = state.config.servers.clone();
        self.apply_servers(&mut state, servers, overrides)
    }
}
