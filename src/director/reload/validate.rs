//! The first step of a reload: what can be checked without the system.

use std::sync::Arc;

use super::parts::RunningParts;
use crate::director::config::{DirectorConfig, ServiceConfig};
use crate::director::diff::{ReloadPlan, ServiceDiff, ServiceStep};
use crate::director::error::{DirectorError, ServiceError};
use crate::director::overrides::ServiceOverrides;
use crate::director::service::VirtualService;

/// A configuration that can run, as far as the system is not involved.
pub(super) struct ValidatedReload {
    pub(super) config: DirectorConfig,
    pub(super) plan: ReloadPlan,
    /// The services of the configuration in its order, new ones without frontends, with what is to be
    /// applied to each.
    pub(super) services: Vec<(Arc<VirtualService>, Option<ServiceDiff>)>,
    /// The services that run and are not in the configuration.
    pub(super) removed: Vec<Arc<VirtualService>>,
}

impl RunningParts {
    /// Checks a configuration, and makes the services that do not run yet.
    pub(super) fn validate(
        &self,
        config: DirectorConfig,
    ) -> Result<ValidatedReload, DirectorError> {
        let plan = self.applied.plan(&config);
        config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let running = self.registry.services();
        let mut services = Vec::new();
        for wanted in &config.services {
            services.push(validate_service(&running, &plan, wanted).map_err(|source| {
                DirectorError::Service { service: wanted.name.clone(), source }
            })?);
        }
        let is_kept = |service: &Arc<VirtualService>| {
            services.iter().any(|(kept, _)| Arc::ptr_eq(kept, service))
        };
        let removed = running.iter().filter(|service| !is_kept(service)).cloned().collect();
        Ok(ValidatedReload { config, plan, services, removed })
    }
}

fn validate_service(
    running: &[Arc<VirtualService>],
    plan: &ReloadPlan,
    wanted: &ServiceConfig,
) -> Result<(Arc<VirtualService>, Option<ServiceDiff>), ServiceError> {
    let mut same = running
        .iter()
        .filter(|service| (&service.name, service.protocol) == (&wanted.name, wanted.protocol));
    let Some(service) = same.next() else {
        let service = VirtualService::new(wanted, ServiceOverrides::default())?;
        service.validate(wanted)?;
        return Ok((Arc::new(service), Some(ServiceDiff::ALL_OF_NEW_SERVICE)));
    };
    let mut steps = plan.services.iter().filter(|(name, _)| *name == wanted.name);
    let diff = steps.find_map(|(_, step)| match step {
        ServiceStep::Change(diff) => Some(*diff),
        ServiceStep::Add | ServiceStep::Remove => None,
    });
    if diff.is_some() {
        service.validate(wanted)?;
    }
    Ok((Arc::clone(service), diff))
}
