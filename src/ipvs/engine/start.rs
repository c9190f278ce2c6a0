//! The start of the engine, and its claims.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use super::command::{ENGINE, EngineCommand};
use super::connection_list::ConnectionList;
use super::handle::IpvsClaim;
use super::settings::IpvsSettings;
use super::worker::EngineWorker;
use crate::engine::{Engine, EngineClaim, EngineError, EngineRequest};
use crate::ipvs::client::IpvsClient;
use crate::ipvs::daemon::IpvsDaemon;
use crate::ipvs::desired::desired_service;

/// The kernel's IPVS as an [engine](crate::engine), in the network namespace of the thread that starts
/// it.
///
/// A thread of its own asks the kernel; it sleeps while nothing changes, but for a reading of the
/// counters every two seconds, or every 20 ms a service if that is more. Each reading also finds what
/// another program changed of the engine's services, repairs and logs it. Services of others are left
/// alone. Dropped, the engine leaves the kernel as it is.
///
/// # Costs
/// Some 100 us a service and reading; a change of a backend is one request to the kernel.
#[derive(Debug)]
pub struct IpvsEngine {
    commands: Sender<EngineCommand>,
    connections: Arc<ConnectionList>,
}

impl IpvsEngine {
    /// Starts the engine, which has no services yet.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if the kernel has no IPVS, the process may not use it, or the system
    /// starts no thread.
    pub fn start() -> Result<Self, EngineError> {
        let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| {
            EngineError::Unavailable { engine: ENGINE, source }
        };
        let mut client = IpvsClient::open().map_err(|error| unavailable(error.into()))?;
        // Reading needs the capability, too.
        client.info().map_err(|error| unavailable(error.into()))?;
        IpvsSettings::default().apply(&mut client);
        let (commands, received) = mpsc::channel();
        let worker = EngineWorker::new(client, commands.clone(), received);
        let thread = thread::Builder::new().name("lvs-ipvs".to_owned());
        thread.spawn(move || worker.run()).map_err(|error| unavailable(error.into()))?;
        Ok(Self { commands, connections: Arc::new(ConnectionList::open()) })
    }

    /// Changes the settings of the network namespace and of the engine. Returns at once; what the kernel
    /// refuses is logged.
    pub fn configure(&self, settings: IpvsSettings) {
        // The thread may have panicked.
        let _ = self.commands.send(EngineCommand::Configure(settings));
    }

    /// Runs this synchronization daemon and no other. `None` ends the one that the engine ran before, and
    /// leaves those of other programs. Returns at once; what the kernel refuses is logged, and tried again.
    pub fn run_daemon(&self, daemon: Option<IpvsDaemon>) {
        let _ = self.commands.send(EngineCommand::RunDaemon(daemon));
    }
}

impl Engine for IpvsEngine {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn claim(&self, request: EngineRequest) -> Result<Box<dyn EngineClaim>, EngineError> {
        let service = desired_service(&request).map_err(|reason| EngineError::Refused {
            engine: ENGINE,
            address: request.address,
            reason,
        })?;
        Ok(Box::new(IpvsClaim {
            commands: self.commands.clone(),
            connections: Arc::clone(&self.connections),
            request,
            service,
        }))
    }
}

impl Drop for IpvsEngine {
    fn drop(&mut self) {
        // The thread may have panicked.
        let _ = self.commands.send(EngineCommand::Stop);
    }
}
