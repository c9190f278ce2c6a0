//! The engines of a director: one of each kind, made when the first service asks for it.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::config::{EngineKind, IpvsConfig, PacketConfig, ServiceConfig};
use super::error::{DirectorError, ServiceError};
use super::role::RoleWatch;
use super::supervisor::TaskSupervisor;
use crate::engine::{Engine, EngineError};
use crate::ipvs::IpvsEngine;
use crate::packet::{PacketEngine, PacketStatistics};
use crate::sync::{Mutex, lock};

/// The engines that services of the director use. A clone has the same.
#[derive(Clone, Debug, Default)]
pub(super) struct EngineSet(Arc<Mutex<StartedEngines>>);

#[derive(Debug, Default)]
struct StartedEngines {
    ipvs: Option<Arc<IpvsEngine>>,
    packet: Option<StartedPacketEngine>,
}

#[derive(Debug)]
struct StartedPacketEngine {
    engine: Arc<PacketEngine>,
    /// The table that the engine was made with.
    config: PacketConfig,
}

/// The engine of a service.
#[derive(Clone, Debug)]
pub(super) struct ChosenEngine {
    pub(super) kind: EngineKind,
    /// `None` for the forwarder of this crate.
    pub(super) engine: Option<Arc<dyn Engine>>,
}

impl EngineSet {
    /// Applies the settings of the `[ipvs]` table, if a service uses IPVS.
    pub(super) fn configure_ipvs(&self, config: &IpvsConfig) {
        if let Some(engine) = &lock(&self.0).ipvs {
            engine.configure(config.settings());
        }
    }

    /// Runs the synchronization daemon of a role, if a service uses IPVS.
    fn run_ipvs_daemon(&self, config: &IpvsConfig, is_active: bool) {
        if let Some(engine) = &lock(&self.0).ipvs {
            engine.run_daemon(config.daemon(is_active));
        }
    }

    /// Runs the synchronization daemon of the role now, and when the role changes.
    pub(super) fn follow_role(
        &self,
        config: IpvsConfig,
        role: &RoleWatch,
        supervisor: &TaskSupervisor,
    ) -> AbortOnDropHandle<()> {
        let (engines, role) = (self.clone(), role.clone());
        supervisor.spawn("ipvs role", move || {
            let (engines, config, mut role) = (engines.clone(), config.clone(), role.clone());
            async move {
                loop {
                    engines.run_ipvs_daemon(&config, role.is_active());
                    if !role.changed().await {
                        return;
                    }
                }
            }
        })
    }

    /// Checks that the running packet engine has the settings of a `[packet]` table.
    pub(super) fn check_packet(&self, config: &PacketConfig) -> Result<(), DirectorError> {
        let engines = lock(&self.0);
        let started = engines.packet.as_ref().map(|started| &started.config);
        let keys = started.map_or_else(Vec::new, |started| started.keys_for_restart(config));
        if keys.is_empty() { Ok(()) } else { Err(DirectorError::PacketRestart { keys }) }
    }

    /// Returns what the packet engine has counted, if it runs.
    pub(super) fn packet_statistics(&self) -> Option<PacketStatistics> {
        lock(&self.0).packet.as_ref().map(|started| started.engine.statistics())
    }

    /// Returns the packet engine, if it runs.
    pub(super) fn packet(&self) -> Option<Arc<PacketEngine>> {
        lock(&self.0).packet.as_ref().map(|started| Arc::clone(&started.engine))
    }

    /// Ends the packet engine, whose services have all ended or were handed over. For those that were handed over
    /// the table in the kernel decides from now on, or the engine of a successor.
    pub(super) fn stop_packet(&self) {
        lock(&self.0).packet = None;
    }

    /// Returns the first engine of a service that this machine allows, and logs why others are not. `packet` are
    /// the settings of a packet engine that does not run yet.
    pub(super) fn choose(
        &self,
        service: &ServiceConfig,
        packet: &PacketConfig,
    ) -> Result<ChosenEngine, ServiceError> {
        let engines = service.engines();
        for (n, kind) in engines.iter().enumerate() {
            match self.engine(*kind, packet) {
                Ok(engine) => return Ok(ChosenEngine { kind: *kind, engine }),
                Err(error) if n + 1 == engines.len() => return Err(error.into()),
                Err(error) => {
                    let (name, next) = (&service.name, engines[n + 1].name());
                    tracing::warn!("service {name}: {error}; next in its list: {next}");
                }
            }
        }
        let reason = "there is no engine in the list".to_owned();
        Err(ServiceError::Config(reason))
    }

    fn engine(
        &self,
        kind: EngineKind,
        packet: &PacketConfig,
    ) -> Result<Option<Arc<dyn Engine>>, EngineError> {
        let mut started = lock(&self.0);
        match kind {
            EngineKind::Proxy => Ok(None),
            EngineKind::Ipvs => {
                let engine = match &started.ipvs {
                    Some(engine) => Arc::clone(engine),
                    None => Arc::clone(started.ipvs.insert(Arc::new(IpvsEngine::start()?))),
                };
                Ok(Some(engine))
            }
            EngineKind::Packet => {
                if let Some(started) = &started.packet {
                    let engine = Arc::clone(&started.engine);
                    return Ok(Some(engine));
                }
                let engine = Arc::new(PacketEngine::start(packet.settings())?);
                let config = packet.clone();
                started.packet = Some(StartedPacketEngine { engine: Arc::clone(&engine), config });
                Ok(Some(engine))
            }
        }
    }
}
