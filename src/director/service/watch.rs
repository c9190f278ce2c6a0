//! Health checks and discovery of a service.

use std::net::SocketAddr;
use std::sync::Arc;

use super::state::{VirtualService, VirtualServiceState};
use crate::director::config::{ConfiguredSource, DiscoveryConfig, HumanDuration};
use crate::director::error::ServiceError;
use crate::director::supervisor::TaskSupervisor;
use crate::discovery::{Feed, MemberSource, RemovalPolicy};
use crate::health::{Monitor, SavedHealth};
use crate::{BackendId, Balancer, SetError};

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
        let plan = plan.path_finder(&state.check_paths.finder());
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
    pub(in crate::director) fn start_discovery(
        &self,
        supervisor: &TaskSupervisor,
    ) -> Result<(), ServiceError> {
        let mut state = self.lock_state();
        state.feed = None;
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
        // Checked here; the task makes the source that it uses.
        discovery.build_source().map_err(|problem| ServiceError::Config(problem.reason))?;
        let spec = FeedSpec {
            service: self.name.clone(),
            balancer: self.balancer.clone(),
            configured: state.configured_ids(),
            discovery,
        };
        let spec = Arc::new(spec);
        state.feed = Some(supervisor.spawn("discovery", move || Arc::clone(&spec).run()));
        Ok(())
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

/// What the feed of a service is made from, again after a panic.
struct FeedSpec {
    service: String,
    balancer: Balancer<SocketAddr>,
    configured: Vec<BackendId>,
    discovery: DiscoveryConfig,
}

impl FeedSpec {
    async fn run(self: Arc<Self>) {
        let state = match self.discovery.build_source() {
            Ok(ConfiguredSource::File(source)) => self.run_feed(source).await,
            Ok(ConfiguredSource::Dns(source)) => self.run_feed(*source).await,
            Err(problem) => problem.reason,
        };
        let service = &self.service;
        tracing::warn!("service {service}: discovery has stopped, its servers stay: {state}");
    }

    /// Runs a feed until it stops; returns its last state. It adopts the servers that an earlier one
    /// found.
    async fn run_feed<S: MemberSource<SocketAddr> + 'static>(&self, source: S) -> String {
        let snapshot = self.balancer.snapshot();
        let ids = snapshot.backends().iter().map(|backend| backend.id().clone());
        let discovered = ids.filter(|id| !self.configured.contains(id));
        let mut feed = Feed::new(self.balancer.backend_set(), source)
            .name(format!("service {}", self.service))
            .adopt(discovered);
        if self.discovery.allow_empty {
            feed = feed.allow_empty();
        }
        if let Some(HumanDuration(deadline)) = self.discovery.drain {
            feed = feed.removal(RemovalPolicy::Drain { deadline });
        }
        feed.run().await.state.to_string()
    }
}
