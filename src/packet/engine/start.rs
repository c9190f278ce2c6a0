//! The start of the engine, and its claims.

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};

use super::command::{CommandSender, ENGINE, PacketCommand, THREAD_ENDED};
use super::handle::PacketClaim;
use super::tap::Tap;
use super::wanted_server::wanted_server;
use super::worker::{PacketWorker, PublishedState};
use crate::engine::{
    Engine, EngineAddress, EngineClaim, EngineError, EngineProtocol, EngineRequest,
};
use crate::packet::error::PacketError;
use crate::packet::flow_sync::{FlowBatch, FlowFeed, RestoredFlows};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawServiceKey};
use crate::packet::program::PacketProgram;
use crate::packet::settings::PacketSettings;
use crate::packet::statistics::PacketStatistics;
use crate::panics::panic_message;
use crate::rtnetlink::{RtnetlinkGroup, RtnetlinkMonitor, RtnetlinkSocket};
use crate::sync::{Mutex, lock};

/// The packet engine as an [engine](crate::engine), in the network namespace of the thread that starts it.
///
/// See [the module](super::super) for what it does and what outlives what. A thread of its own decides the
/// first packets of flows. Dropped, the engine leaves what was
/// [handed over](crate::engine::EngineService::hand_over) to a successor, and removes its program if nothing
/// was.
///
/// # Costs
/// A new flow takes some ten microseconds of the thread, and nothing for each packet after it. 262 octets of
/// the kernel's memory for each flow of [`PacketSettings::flows`] and 316 for each of
/// [`PacketSettings::ipv6_flows`], whether it is there or not, and 260 octets of this process for each that is
/// there.
#[derive(Debug)]
pub struct PacketEngine {
    commands: CommandSender,
    published: Arc<Mutex<PublishedState>>,
    thread: Option<JoinHandle<()>>,
}

impl PacketEngine {
    /// Loads the program, takes over what an earlier process left, and starts the thread.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] with a [`PacketError`] that names what the machine lacks.
    pub fn start(settings: PacketSettings) -> Result<Self, EngineError> {
        Self::try_start(settings)
            .map_err(|error| EngineError::Unavailable { engine: ENGINE, source: Box::new(error) })
    }

    /// Runs a function in the thread, and waits until it has run.
    #[cfg(test)]
    pub(super) fn run<R: Send + 'static>(
        &self,
        run: impl FnOnce(&mut PacketWorker) -> R + Send + 'static,
    ) -> R {
        let (reply, answer) = mpsc::sync_channel(1);
        let run = move |worker: &mut dyn std::any::Any| {
            let _ = reply.send(run(worker.downcast_mut().expect("it is the worker")));
        };
        self.commands.send(PacketCommand::Run(Box::new(run)));
        answer.recv().expect("the thread answers")
    }

    fn try_start(settings: PacketSettings) -> Result<Self, PacketError> {
        if let Some((setting, reason)) = settings.problems().pop() {
            return Err(PacketError::Setting { setting, reason });
        }
        let mut netlink =
            RtnetlinkSocket::open().map_err(|source| PacketError::Netlink { source })?;
        let addresses =
            RtnetlinkMonitor::open(&[RtnetlinkGroup::Ipv4Addresses, RtnetlinkGroup::Ipv6Addresses])
                .map_err(|source| PacketError::Netlink { source })?;
        let loaded = PacketProgram::load(&settings)?;
        let tap = Tap::open(&mut netlink)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|source| PacketError::Tap { source: source.into() })?;
        let (sender, received) = mpsc::channel();
        let commands = CommandSender::new(sender, event);
        let channel = (commands.clone(), received);
        let worker = PacketWorker::new(loaded, tap, (netlink, addresses), settings, channel)?;
        let published = worker.published();
        let thread = thread::Builder::new().name("lvs-packet".to_owned());
        let spawned = thread.spawn(move || {
            // Nothing is used any more that the panic may have left half changed.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| worker.run())) {
                let message = panic_message(&*payload);
                tracing::error!(
                    "engine packet: its thread has ended by a panic, and a table decides new flows: \
                     {message}"
                );
            }
        });
        let thread = spawned.map_err(|source| PacketError::Tap { source })?;
        Ok(Self { commands, published, thread: Some(thread) })
    }

    /// Returns what the program has counted, as of a second ago at most.
    #[must_use]
    pub fn statistics(&self) -> PacketStatistics {
        lock(&self.published).statistics
    }

    /// Returns the flows of this engine, for that of another machine: all that are older than half a second, and then
    /// those that become so, and those that have ended.
    ///
    /// A flow is told of when its client is known to be there (see [the module](super::super)). Of a UDP flow that
    /// nobody answers it is enough to have packets for a quarter of a second. It takes some microseconds of the thread
    /// for each flow that is told of.
    ///
    /// # Errors
    /// [`EngineError::Flows`], if the thread has ended by a panic.
    pub fn flow_feed(&self) -> Result<FlowFeed, EngineError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.commands.send(PacketCommand::FeedFlows { reply });
        answer.recv().map_err(|_| flows_error(THREAD_ENDED))
    }

    /// Makes flows what another machine's engine says of them, and waits until they are; some tens of milliseconds for
    /// a batch of [`FlowBatch::MAX_FLOWS`].
    ///
    /// Flows of a virtual address that this machine has are left as they are. The flows of the others have a lease
    /// here, as they have there, and do not end for want of packets as long as batches come. When this machine gets the
    /// address, they are its own.
    ///
    /// # Errors
    /// [`EngineError::Flows`], if the kernel does not take a flow, or the thread has ended by a panic.
    pub fn restore_flows(&self, batch: FlowBatch) -> Result<RestoredFlows, EngineError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.commands.send(PacketCommand::RestoreFlows { batch, reply });
        answer.recv().map_err(|_| flows_error(THREAD_ENDED))?.map_err(flows_error)
    }

    /// Returns the names of the devices at which packets are carried.
    #[must_use]
    pub fn devices(&self) -> Vec<String> {
        lock(&self.published).devices.clone()
    }

    /// Returns the names of those of the [`PacketSettings::xdp_devices`] at whose drivers frames are carried.
    #[must_use]
    pub fn xdp_devices(&self) -> Vec<String> {
        lock(&self.published).xdp_devices.clone()
    }
}

impl Engine for PacketEngine {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn claim(&self, request: EngineRequest) -> Result<Box<dyn EngineClaim>, EngineError> {
        let key = service_key(&request).map_err(|reason| EngineError::Refused {
            engine: ENGINE,
            address: request.address,
            reason,
        })?;
        Ok(Box::new(PacketClaim { commands: self.commands.clone(), request, key }))
    }
}

impl Drop for PacketEngine {
    fn drop(&mut self) {
        // The thread may have panicked.
        self.commands.send(PacketCommand::Stop);
        // What it removes is gone when the process ends right after this. It takes some milliseconds.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn flows_error(source: impl Into<Box<dyn StdError + Send + Sync>>) -> EngineError {
    EngineError::Flows { engine: ENGINE, source: source.into() }
}

/// Returns the key of the service that a request asks for, or what the engine cannot do.
fn service_key(request: &EngineRequest) -> Result<RawServiceKey, String> {
    let EngineAddress::Socket { protocol, address } = request.address else {
        return Err("it has no services by firewall mark".to_owned());
    };
    if address.ip().is_unspecified() {
        return Err("the service needs an address of its own, and not a wildcard".to_owned());
    }
    if address.port() == 0 {
        return Err("it has no services of every port".to_owned());
    }
    if request.one_packet {
        return Err("it does not schedule each datagram by itself".to_owned());
    }
    // Backends come and go: what is wrong with one is logged, and it gets no flows.
    if let Some(server) = request.sorry_server {
        let server = request.destination_address(server);
        wanted_server(address, server, request.sorry_server_method)?;
    }
    let protocol = match protocol {
        EngineProtocol::Tcp => PROTOCOL_TCP,
        EngineProtocol::Udp => PROTOCOL_UDP,
    };
    Ok(RawServiceKey::new(address, protocol))
}
