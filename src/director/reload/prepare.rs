//! The second step of a reload: what the system may refuse.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::parts::RunningParts;
use super::validate::ValidatedReload;
use crate::director::announce::PreparedAnnouncer;
use crate::director::config::DirectorConfig;
use crate::director::diff::ReloadPlan;
use crate::director::engines::EngineSet;
use crate::director::error::DirectorError;
use crate::director::handover::HandoverListener;
use crate::director::service::{CommonServiceOptions, PreparedService, VirtualService};
use crate::director::sockets::{ListeningSockets, open_listener};
use crate::forward::WorkerPool;

/// A configuration whose sockets are open. Dropped, it closes those that were not open before.
pub(super) struct PreparedReload {
    pub(super) config: DirectorConfig,
    pub(super) plan: ReloadPlan,
    pub(super) pool: WorkerPool,
    /// The services that change or are new.
    pub(super) changed: Vec<(Arc<VirtualService>, PreparedService)>,
    pub(super) removed: Vec<Arc<VirtualService>>,
    /// All services of the configuration, in its order.
    pub(super) services: Vec<Arc<VirtualService>>,
    pub(super) admin: Option<Arc<TcpListener>>,
    pub(super) sync: Option<Arc<TcpListener>>,
    /// A new announcer, unless one runs.
    pub(super) announcer: Option<PreparedAnnouncer>,
    /// The socket for a successor, if it changes.
    pub(super) handover: Option<HandoverListener>,
}

impl RunningParts {
    /// Opens what a configuration needs. `sockets` are used first.
    pub(super) fn prepare(
        &self,
        validated: ValidatedReload,
        mut sockets: ListeningSockets,
    ) -> Result<PreparedReload, DirectorError> {
        let pool = self.prepare_pool(validated.config.workers)?;
        let changed = prepare_services(&validated, &pool, &self.engines, &mut sockets)?;
        let ValidatedReload { config, plan, services, removed } = validated;
        let admin = match &config.admin {
            Some(admin) => {
                let running = self.admin.as_ref().map(|running| running.listener());
                Some(open_listener("admin", running, admin.listen, &mut sockets)?)
            }
            None => None,
        };
        let sync = match &config.sync {
            Some(sync) => {
                let running = self.sync.as_ref().map(|running| running.listener());
                Some(open_listener("sync", running, sync.listen, &mut sockets)?)
            }
            None => None,
        };
        let announcer = match &config.announce {
            Some(announce) if self.announce.is_none() => {
                Some(PreparedAnnouncer::start(announce, config.drain_timeout())?)
            }
            _ => None,
        };
        let path = config.handover().filter(|_| plan.handover);
        let handover = path.map(HandoverListener::bind).transpose()?;
        for address in sockets.unclaimed_addresses() {
            tracing::debug!("reload: the listener on {address} is closed: no service uses it");
        }
        let services = services.into_iter().map(|(service, _)| service).collect();
        Ok(PreparedReload {
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
        })
    }

    /// Returns the pool of this many worker threads, or of one for each core: the pool that runs if it
    /// is that one.
    fn prepare_pool(&self, threads: Option<usize>) -> Result<WorkerPool, DirectorError> {
        match &self.pool {
            Some(pool) if self.applied.config.workers == threads => Ok(pool.clone()),
            _ => match threads {
                Some(threads) => WorkerPool::new(threads),
                None => WorkerPool::for_each_core(),
            }
            .map_err(DirectorError::Workers),
        }
    }
}

fn prepare_services(
    validated: &ValidatedReload,
    pool: &WorkerPool,
    engines: &EngineSet,
    sockets: &mut ListeningSockets,
) -> Result<Vec<(Arc<VirtualService>, PreparedService)>, DirectorError> {
    let ValidatedReload { config, services, removed, .. } = validated;
    // All sockets that may change their service are gathered first: an address may move from one
    // service to another.
    for service in removed {
        sockets.extend(service.duplicate_sockets());
    }
    for (service, diff) in services {
        if diff.is_some_and(|diff| diff.listen || diff.needs_new_frontends()) {
            sockets.extend(service.duplicate_sockets());
        }
    }
    let find_balancer = |name: &str| {
        let mut named = services.iter().filter(|(service, _)| service.name == name);
        named.next().map(|(service, _)| service.balancer.clone())
    };
    let (virtual_interfaces, packet) = (config.virtual_interfaces(), config.packet());
    let common = CommonServiceOptions {
        pool,
        engines,
        packet: &packet,
        freebind: config.has_virtual_addresses(),
        log_connections: config.log.connection_format(),
        virtual_interfaces: &virtual_interfaces,
    };
    let mut changed = Vec::new();
    for ((service, diff), wanted) in services.iter().zip(&config.services) {
        let Some(diff) = *diff else { continue };
        let prepared = service.prepare(wanted, diff, common, sockets, &find_balancer);
        let prepared = prepared
            .map_err(|source| DirectorError::Service { service: service.name.clone(), source })?;
        changed.push((Arc::clone(service), prepared));
    }
    Ok(changed)
}
