//! Health checks and discovery of a service.

use std::net::SocketAddr;

use tokio::task::JoinHandle;

use super::state::{VirtualService, VirtualServiceState};
use crate::director::config::{ConfiguredSource, DiscoveryConfig, HumanDuration};
use crate::director::error::ServiceError;
use crate::discovery::{Feed, MemberSource, RemovalPolicy};
use crate::health::{Monitor, SavedHealth};
use crate::{BackendId, SetError};

impl VirtualService {
    /// Starts the configured health checks and outlier ejection, and ends those before. What they had
    /// found out is kept.
    pub(in crate::director) fn start_health_checks(
        &self,
        monitor: &Monitor,
    ) -> Result<(), ServiceError> {
        let mut state = self.lock_state();
        let plan =
            state.config.health_plan().map_err(|problem| ServiceError::Config(problem.reason))?;
        let known = state.health_watch.take().map(|watch| {
            let known = watch.export();
            watch.stop();
            known
        });
        let set = self.balancer.backend_set();
        state.health_watch = Some(monitor.watch_again(set, plan, known.as_ref())?);
        Ok(())
    }

    /// Starts the configured discovery, and ends the one before. Without one, the servers that the
    /// one before found are removed.
    pub(in crate::director) fn start_discovery(&self) -> Result<(), ServiceError> {
        let mut state = self.lock_state();
        if let Some(feed) = state.feed.take() {
            feed.abort();
        }
        let Some(discovery) = state.config.discovery.clone() else {
            let configured = state.configured_ids();
            self.balancer.backend_set().edit(|edit| {
                let ids: Vec<_> =
                    edit.backends().map(|(backend, _)| backend.id().clone()).collect();
                let mut discovered = ids.iter().filter(|id| !configured.contains(id));
                discovered.try_for_each(|id| edit.remove(id).map(drop))
            })?;
            return Ok(());
        };
        let source =
            discovery.build_source().map_err(|problem| ServiceError::Config(problem.reason))?;
        state.feed = Some(match source {
            ConfiguredSource::File(source) => self.spawn_feed(&state, source, &discovery),
            ConfiguredSource::Dns(source) => self.spawn_feed(&state, source, &discovery),
        });
        Ok(())
    }

    fn spawn_feed<S: MemberSource<SocketAddr> + 'static>(
        &self,
        state: &VirtualServiceState,
        source: S,
        discovery: &DiscoveryConfig,
    ) -> JoinHandle<()> {
        let configured = state.configured_ids();
        let snapshot = self.balancer.snapshot();
        let ids = snapshot.backends().iter().map(|backend| backend.id().clone());
        let discovered = ids.filter(|id| !configured.contains(id));
        let mut feed = Feed::new(self.balancer.backend_set(), source)
            .name(format!("service {}", self.name))
            .adopt(discovered);
        if discovery.allow_empty {
            feed = feed.allow_empty();
        }
        if let Some(HumanDuration(deadline)) = discovery.drain {
            feed = feed.removal(RemovalPolicy::Drain { deadline });
        }
        let name = self.name.clone();
        tokio::spawn(async move {
            let status = feed.run().await;
            tracing::warn!(
                "service {name}: discovery has stopped, its servers stay: {}",
                status.state
            );
        })
    }

    /// Returns what health checks and outlier ejection have found out, without outcome counts.
    pub(in crate::director) fn export_health(&self) -> Option<SavedHealth> {
        self.lock_state().health_watch.as_ref().map(|watch| watch.export().without_outcomes())
    }

    /// Adopts what another director's health checks have found out; results of this director's own
    /// checks take precedence.
    pub(in crate::director) fn restore_health(&self, saved: &SavedHealth) -> Result<(), SetError> {
        self.lock_state().health_watch.as_ref().map_or(Ok(()), |watch| watch.restore(saved))
    }
}

impl VirtualServiceState {
    /// Returns the ids of the servers that do not come from discovery.
    fn configured_ids(&self) -> Vec<BackendId> {
        let servers = self.overrides.apply_to(&self.config.servers);
        servers.iter().map(|server| BackendId::from(server.config.address.to_string())).collect()
    }
}
