//! The last step of a reload: the change itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::parts::RunningParts;
use super::prepare::PreparedReload;
use crate::director::admin::AdminServer;
use crate::director::announce::{AnnounceDriver, PreparedAnnouncer};
use crate::director::applied::{AppliedConfig, ReloadPart, ReloadSummary};
use crate::director::config::DirectorConfig;
use crate::director::descriptors::reserve_descriptors;
use crate::director::diff::ServiceDiff;
use crate::director::error::DirectorError;
use crate::director::handover::HandoverListener;
use crate::director::predecessor::Predecessor;
use crate::director::service::{DrainPolicy, PreparedService, VirtualService};
use crate::director::sockets::ListeningSockets;
use crate::director::sync::RunningSync;
use crate::director::vrrp::{ELECTION_TASK, VrrpDriver};

/// The pause before an election is started again that could not be started.
const ELECTION_RETRY_INTERVAL: Duration = Duration::from_secs(5);

impl RunningParts {
    /// Applies another configuration.
    ///
    /// # Errors
    /// The configuration is impossible, and nothing has changed. If a new election failed and the old
    /// one could not be started again, that is recorded as a failure of `[vrrp]`.
    pub(in crate::director) async fn reload(
        &mut self,
        config: DirectorConfig,
        sockets: ListeningSockets,
        predecessor: Option<Predecessor>,
    ) -> Result<ReloadSummary, DirectorError> {
        let validated = self.validate(config)?;
        let prepared = self.prepare(validated, sockets)?;
        self.commit(prepared, predecessor).await
    }

    async fn commit(
        &mut self,
        prepared: PreparedReload,
        predecessor: Option<Predecessor>,
    ) -> Result<ReloadSummary, DirectorError> {
        let PreparedReload {
            config,
            plan,
            pool,
            changed,
            removed,
            services,
            admin,
            sync,
            announcer,
            handover,
        } = prepared;
        if plan.vrrp {
            self.restart_vrrp(&config).await?;
        }
        // From here on a failure is recorded, and the rest is applied.
        self.applied = AppliedConfig { config: config.clone(), ..AppliedConfig::default() };
        self.pool = Some(pool);
        // Before services need their marks.
        self.engines.configure_ipvs(&config.ipvs());
        if plan.announce {
            // Before services of the kernel look whether this machine has the addresses.
            self.commit_announce(&config, announcer, predecessor.is_some()).await;
        }
        self.commit_services(&config, changed, removed, services);
        if plan.ipvs || !plan.services.is_empty() || self.ipvs_role.is_none() {
            let (config, role) = (config.ipvs(), &self.role_watch);
            self.ipvs_role = Some(self.engines.follow_role(config, role, &self.supervisor));
        }
        if let Err(error) = self.engines.check_packet(&config.packet()) {
            self.applied.record_failure(ReloadPart::Packet, error);
        }
        if plan.admin {
            self.commit_admin(&config, admin);
        }
        if plan.sync {
            self.sync = None;
            self.sync = config.sync.zip(sync).map(|(config, listener)| {
                let (parts, role) = ((&self.registry, &self.engines), &self.role_watch);
                let (slot, supervisor) = (&self.sync_status, &self.supervisor);
                RunningSync::start(config, listener, parts, role, slot, supervisor)
            });
        }
        // A start that fails, or ends here, leaves the handover socket to the predecessor.
        let is_sole = match predecessor {
            Some(_) if !self.applied.failures.is_empty() => false,
            Some(predecessor) => {
                if let Some(announce) = &mut self.announce {
                    announce.take_over();
                }
                predecessor.confirm_takeover();
                true
            }
            None => true,
        };
        if plan.handover && is_sole {
            self.commit_handover(handover);
        }
        reserve_descriptors(&self.applied.config);
        self.reload_status.publish(&self.applied.failures);
        Ok(ReloadSummary::new(plan, self.applied.failures.clone()))
    }

    /// Starts announcements, changes those that run, or ends them.
    async fn commit_announce(
        &mut self,
        config: &DirectorConfig,
        announcer: Option<PreparedAnnouncer>,
        has_predecessor: bool,
    ) {
        let result = match (&config.announce, self.announce.take()) {
            (Some(announce), Some(mut running)) => {
                let result = running.reconfigure(announce, config.drain_timeout());
                self.announce = Some(running);
                result
            }
            (Some(announce), None) => {
                let (slot, delay) = (&self.announce_slot, announce.withdraw_delay());
                let parts = (&self.registry, &self.supervisor);
                self.announce = announcer.map(|prepared| {
                    AnnounceDriver::start(prepared, delay, has_predecessor, slot, parts)
                });
                Ok(())
            }
            (None, Some(running)) => {
                running.retire(config.drain_timeout()).await;
                Ok(())
            }
            (None, None) => Ok(()),
        };
        if let Err(error) = result {
            self.applied.record_failure(ReloadPart::Announce, error);
        }
    }

    /// Changes the running virtual routers, or else replaces the election. If the new one cannot be
    /// started, the old one is started again.
    async fn restart_vrrp(&mut self, config: &DirectorConfig) -> Result<(), DirectorError> {
        if let Some(vrrp) = self.vrrp.as_mut().filter(|_| !config.vrrp.is_empty())
            && vrrp.reconfigure(&config.vrrp, &self.registry)?
        {
            return Ok(());
        }
        self.stop_vrrp().await;
        let result = self.start_vrrp(config);
        if result.is_err() {
            self.resume_vrrp();
        }
        result
    }

    /// Starts the election that ran before. A failure is recorded; the next reload tries again, and the
    /// director does after a pause.
    pub(in crate::director) fn resume_vrrp(&mut self) {
        let config = std::mem::take(&mut self.applied.config);
        let result = self.start_vrrp(&config);
        self.applied.config = config;
        let failures = &mut self.applied.failures;
        let position = failures.iter().position(|failure| failure.part == ReloadPart::Vrrp);
        let before = position.map(|position| failures.remove(position));
        match (result, before) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => tracing::info!("[vrrp]: the election was started again"),
            (Err(error), before) => {
                match before {
                    // Logged before.
                    Some(same) if same.error.to_string() == error.to_string() => {
                        self.applied.failures.push(same);
                    }
                    _ => self.applied.record_failure(ReloadPart::Vrrp, error),
                }
                let control = self.control.clone();
                self.vrrp_retry = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                    sleep(ELECTION_RETRY_INTERVAL).await;
                    control.restart_election().await;
                })));
            }
        }
        self.reload_status.publish(&self.applied.failures);
    }

    /// Starts the election again if its thread has ended by itself, or if it could not be started
    /// again before.
    pub(in crate::director) async fn restart_failed_vrrp(&mut self) {
        if self.vrrp.as_ref().is_some_and(VrrpDriver::has_failed) {
            self.supervisor.record_panic(ELECTION_TASK, "its thread has ended");
            self.stop_vrrp().await;
            self.resume_vrrp();
        } else if self.vrrp.is_none()
            && self.applied.failures.iter().any(|failure| failure.part == ReloadPart::Vrrp)
        {
            self.resume_vrrp();
        }
    }

    fn commit_services(
        &mut self,
        config: &DirectorConfig,
        changed: Vec<(Arc<VirtualService>, PreparedService)>,
        removed: Vec<Arc<VirtualService>>,
        services: Vec<Arc<VirtualService>>,
    ) {
        let policy = DrainPolicy {
            drain_timeout: config.drain_timeout(),
            configured_listeners: config.listen_addresses(),
        };
        while self.draining.try_join_next().is_some() {}
        for service in removed {
            service.retire(&policy);
            self.draining.spawn(async move { service.wait_drained().await });
        }
        for (service, prepared) in changed {
            let mut failed = ServiceDiff::default();
            let (monitor, supervisor) = (self.registry.monitor(), &self.supervisor);
            for (aspects, source) in service.apply(prepared, monitor, supervisor, &policy) {
                failed = failed.union(aspects);
                let part = ReloadPart::Service(service.name.clone());
                let error = DirectorError::Service { service: service.name.clone(), source };
                self.applied.record_failure(part, error);
            }
            if failed != ServiceDiff::default() {
                let key = (service.name.clone(), service.protocol);
                self.applied.failed_services.insert(key, failed);
            }
        }
        self.registry.publish_services(services);
    }

    fn commit_admin(&mut self, config: &DirectorConfig, listener: Option<Arc<TcpListener>>) {
        let wanted = config.admin.as_ref().zip(listener);
        let started = wanted.map(|(admin, listener)| {
            AdminServer::start(admin, listener, self.admin_context.clone(), &self.supervisor)
        });
        match started.transpose() {
            Ok(admin) => {
                self.admin_address.send_replace(admin.as_ref().map(AdminServer::address));
                self.admin = admin;
            }
            Err(error) => self.applied.record_failure(ReloadPart::Admin, error),
        }
    }

    fn commit_handover(&mut self, listener: Option<HandoverListener>) {
        let published = listener.map(|mut listener| listener.publish().map(|()| listener));
        match published.transpose() {
            Ok(listener) => {
                self.handover = listener.map(|listener| {
                    let (listener, control) = (Arc::new(listener), self.control.clone());
                    let has_successor = self.has_successor.clone();
                    self.supervisor.spawn("handover", move || {
                        let (control, has_successor) = (control.clone(), has_successor.clone());
                        Arc::clone(&listener).serve(control, has_successor)
                    })
                });
            }
            Err(error) => self.applied.record_failure(ReloadPart::Handover, error),
        }
    }
}
