//! The engines of a director: one of each kind, made when the first service asks for it.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::config::{EngineKind, IpvsConfig, ServiceConfig};
use super::error::ServiceError;
use super::role::RoleWatch;
use super::supervisor::TaskSupervisor;
use crate::engine::{Engine, EngineError};
use crate::ipvs::IpvsEngine;
use crate::sync::{Mutex, lock};

/// The engines that services of the director use. A clone has the same.
#[derive(Clone, Debug, Default)]
pub(super) struct EngineSet(Arc<Mutex<Option<Arc<IpvsEngine>>>>);

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
        if let Some(engine) = &*lock(&self.0) {
            engine.configure(config.settings());
        }
    }

    /// Runs the synchronization daemon of a role, if a service uses IPVS.
    fn run_ipvs_daemon(&self, config: &IpvsConfig, is_active: bool) {
        if let Some(engine) = &*lock(&self.0) {
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

    /// Returns the first engine of a service that this machine allows, and logs why others are not.
    pub(super) fn choose(&self, service: &ServiceConfig) -> Result<ChosenEngine, ServiceError> {
        let engines = service.engines();
        for (n, kind) in engines.iter().enumerate() {
            match self.engine(*kind) {
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

    fn engine(&self, kind: EngineKind) -> Result<Option<Arc<dyn Engine>>, EngineError> {
        match kind {
            EngineKind::Proxy => Ok(None),
            EngineKind::Ipvs => {
                let mut known = lock(&self.0);
                let engine = match &*known {
                    Some(engine) => Arc::clone(engine),
                    None => Arc::clone(known.insert(Arc::new(IpvsEngine::start()?))),
                };
                Ok(Some(engine))
            }
        }
    }
}
