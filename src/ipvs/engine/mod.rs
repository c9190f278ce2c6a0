//! The kernel's IPVS as an engine of a director.

mod counters;
mod handle;
mod worker;

use std::sync::mpsc::{self, Sender};
use std::thread;

use self::handle::IpvsClaim;
use self::worker::{EngineCommand, EngineWorker};
use super::client::IpvsClient;
use super::desired::desired_service;
use crate::engine::{Engine, EngineClaim, EngineError, EngineRequest};

/// The engine's name in a configuration.
const ENGINE: &str = "ipvs";

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
        expire_connections_of_removed_destinations();
        let (commands, received) = mpsc::channel();
        let worker = EngineWorker::new(client, commands.clone(), received);
        let thread = thread::Builder::new().name("lvs-ipvs".to_owned());
        thread.spawn(move || worker.run()).map_err(|error| unavailable(error.into()))?;
        Ok(Self { commands })
    }
}

/// Has the kernel forget connections of a destination that is removed, in this network namespace. By
/// default it drops their packets without a word: clients wait for their own timeouts, and UDP clients go
/// to a server that is gone for as long as they send.
fn expire_connections_of_removed_destinations() {
    const SETTING: &str = "/proc/sys/net/ipv4/vs/expire_nodest_conn";
    if let Err(error) = std::fs::write(SETTING, "1") {
        tracing::warn!(
            "engine ipvs: cannot write 1 to {SETTING}: {error}; clients of removed servers wait for their \
             timeouts"
        );
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
        Ok(Box::new(IpvsClaim::new(self.commands.clone(), request, service)))
    }
}

impl Drop for IpvsEngine {
    fn drop(&mut self) {
        // The thread may have panicked.
        let _ = self.commands.send(EngineCommand::Stop);
    }
}
