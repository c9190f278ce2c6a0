//! Reads the tables of the kernel's engines.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::director::error::{DirectorError, ServiceError};
use crate::director::service::VirtualService;
use crate::engine::{EngineEntry, EngineEntryKind};

/// Reads the tables of the kernel's engines, for one request at a time: that takes long when the tables
/// do, and goes on when a client no longer waits.
#[derive(Clone, Debug, Default)]
pub(super) struct EngineReader(Arc<Mutex<()>>);

impl EngineReader {
    /// Returns entries of a service, `limit` at most; none of a service of the proxy.
    pub(super) async fn read(
        &self,
        service: &VirtualService,
        kind: EngineEntryKind,
        limit: usize,
    ) -> Result<Vec<EngineEntry>, DirectorError> {
        let services = service.engine_services();
        if services.is_empty() {
            return Ok(Vec::new());
        }
        let guard = Arc::clone(&self.0).lock_owned().await;
        let read = move || {
            let _guard = guard;
            services.iter().try_fold(Vec::new(), |mut entries, service| {
                entries.extend(service.entries(kind, limit - entries.len())?);
                Ok(entries)
            })
        };
        // The task is aborted only with its runtime.
        let result = spawn_blocking(read).await.unwrap_or_else(|_| Ok(Vec::new()));
        result.map_err(|error| DirectorError::Service {
            service: service.name.clone(),
            source: ServiceError::Engine(error),
        })
    }
}
