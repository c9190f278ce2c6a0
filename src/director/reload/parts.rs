//! The parts of a director that run.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::director::admin::{AdminContext, AdminServer};
use crate::director::announce::{AnnounceDriver, AnnounceSlot};
use crate::director::applied::{AppliedConfig, ReloadStatusSlot, ReloadSummary};
use crate::director::command::WeakControlSender;
use crate::director::config::DirectorConfig;
use crate::director::engines::EngineSet;
use crate::director::error::DirectorError;
use crate::director::events::{DirectorEvent, ReloadEvent};
use crate::director::registry::ServiceRegistry;
use crate::director::role::{DirectorRole, RoleSender, RoleWatch};
use crate::director::sockets::ListeningSockets;
use crate::director::supervisor::TaskSupervisor;
use crate::director::sync::{RunningSync, SyncStatusSlot};
use crate::director::vrrp::{ElectionContext, TakeoverConditions, VrrpDriver};
use crate::forward::{DrainReport, WorkerPool};

/// Everything that a reload starts, replaces and ends. The controller owns it; dropped, all of it ends.
pub(in crate::director) struct RunningParts {
    pub(in crate::director) registry: ServiceRegistry,
    pub(in crate::director) supervisor: TaskSupervisor,
    pub(in crate::director) applied: AppliedConfig,
    /// The worker threads of all services that have none of their own; `None` before the first
    /// configuration.
    pub(in crate::director) pool: Option<WorkerPool>,
    /// The engines of services that do not use the forwarder of this crate.
    pub(in crate::director) engines: EngineSet,
    /// Applies the `[ipvs]` table by the role.
    pub(in crate::director) ipvs_role: Option<AbortOnDropHandle<()>>,
    pub(in crate::director) reload_status: ReloadStatusSlot,
    /// Services that were removed, while they have connections.
    pub(in crate::director) draining: JoinSet<DrainReport>,
    pub(in crate::director) admin: Option<AdminServer>,
    pub(in crate::director) admin_context: AdminContext,
    pub(in crate::director) admin_address: watch::Sender<Option<SocketAddr>>,
    pub(in crate::director) vrrp: Option<VrrpDriver>,
    /// The next attempt to start an election that could not be started.
    pub(in crate::director) vrrp_retry: Option<AbortOnDropHandle<()>>,
    pub(in crate::director) announce: Option<AnnounceDriver>,
    pub(in crate::director) announce_slot: AnnounceSlot,
    pub(in crate::director) role: RoleSender,
    pub(in crate::director) sync: Option<RunningSync>,
    pub(in crate::director) sync_status: SyncStatusSlot,
    pub(in crate::director) role_watch: RoleWatch,
    pub(in crate::director) handover: Option<AbortOnDropHandle<()>>,
    pub(in crate::director) control: WeakControlSender,
    pub(in crate::director) has_successor: watch::Sender<bool>,
}

impl RunningParts {
    /// Returns duplicates of all sockets that clients, operators and the standby connect to.
    pub(in crate::director) fn duplicate_sockets(&self) -> ListeningSockets {
        let mut sockets = ListeningSockets::default();
        for service in self.registry.services().iter() {
            sockets.extend(service.duplicate_sockets());
        }
        let admin = self.admin.as_ref().map(|admin| admin.listener().1);
        let sync = self.sync.as_ref().map(|sync| sync.listener().1);
        let listeners = admin.into_iter().chain(sync);
        let duplicates =
            listeners.filter_map(|listener| listener.as_fd().try_clone_to_owned().ok());
        sockets.extend(ListeningSockets::from_descriptors(duplicates));
        sockets
    }

    /// Counts and publishes how a reload ended.
    pub(in crate::director) fn publish_reload(
        &self,
        result: &Result<ReloadSummary, DirectorError>,
    ) {
        let result = match result {
            Ok(summary) => Ok(summary.clone()),
            Err(error) => Err(error.to_string().into()),
        };
        let event = ReloadEvent::new(result);
        self.reload_status.count(event.at, event.result.as_ref().ok());
        self.registry.events().publish(DirectorEvent::Reload(event));
    }

    /// Ends the election, if one runs, and waits until the addresses are handed over.
    pub(in crate::director) async fn stop_vrrp(&mut self) {
        if let Some(vrrp) = self.vrrp.take() {
            vrrp.stop().await;
        }
    }

    /// Starts an election by the `[vrrp]` tables. Without any, this director is active.
    pub(in crate::director) fn start_vrrp(
        &mut self,
        config: &DirectorConfig,
    ) -> Result<(), DirectorError> {
        if config.vrrp.is_empty() {
            self.role.set_without_vrrp(DirectorRole::Active);
            return Ok(());
        }
        let conditions = TakeoverConditions {
            services: config.services.len(),
            sync: config.sync.is_some().then(|| self.sync_status.clone()),
        };
        let election = ElectionContext {
            registry: &self.registry,
            role: &self.role,
            supervisor: &self.supervisor,
            control: &self.control,
        };
        self.vrrp = Some(VrrpDriver::start(&config.vrrp, conditions, election)?);
        Ok(())
    }
}
