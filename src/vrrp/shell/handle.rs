//! The handle of running virtual routers, and the validation of their configurations.

use std::collections::BTreeSet;
use std::net::IpAddr;
#[cfg(target_os = "linux")]
use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    sync::mpsc::{Sender, channel, sync_channel},
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::Duration,
};

#[cfg(target_os = "linux")]
use rustix::event::{EventfdFlags, eventfd};

#[cfg(target_os = "linux")]
use super::VrrpEvent;
use super::{NotifyCommands, VirtualRouterConfig, VrrpEvents, VrrpStartError, VrrpStatus};
#[cfg(target_os = "linux")]
use super::{
    instance::VrrpInstance,
    netlink::default_source,
    thread::{VrrpCommand, VrrpThread, now},
};
use crate::events::EventSender;
#[cfg(target_os = "linux")]
use crate::rtnetlink::{RtnetlinkGroup, RtnetlinkMonitor, RtnetlinkSocket};
use crate::sync::{Mutex, lock};
use crate::vrrp::{OutgoingAdvert, TrackEffect, UnknownTrack, VrrpConfigError};

/// How long the thread may take to reply.
#[cfg(target_os = "linux")]
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The handle of virtual routers that run in a thread of their own, and are master together or not at
/// all.
///
/// Dropping the handle [stops](Self::stop) them. The [module](crate::vrrp#when-a-master-fails) says
/// what happens to the addresses when the process dies.
///
/// All methods may be called from any thread, and from async tasks: [`status`](Self::status) waits some
/// microseconds for the thread's reply. [Stopping](Self::stop) and dropping take longer, and block.
#[derive(Debug)]
pub struct Vrrp {
    #[cfg(target_os = "linux")]
    thread: Mutex<Option<JoinHandle<()>>>,
    #[cfg(target_os = "linux")]
    commands: Sender<VrrpCommand>,
    #[cfg(target_os = "linux")]
    wakeup: Arc<OwnedFd>,
    #[cfg(target_os = "linux")]
    is_master: Arc<AtomicBool>,
    /// The names of the tracked items.
    tracks: Mutex<BTreeSet<String>>,
    /// The events since the start, until the first call of [`Vrrp::events`].
    #[cfg(target_os = "linux")]
    initial_events: Mutex<Option<VrrpEvents>>,
    /// The configurations that run.
    #[cfg(target_os = "linux")]
    configs: Mutex<Vec<VirtualRouterConfig>>,
    /// The threads that run notify commands.
    #[cfg(target_os = "linux")]
    notify_threads: Mutex<Vec<JoinHandle<()>>>,
    /// The thread owns the sender.
    #[cfg(target_os = "linux")]
    events: Weak<EventSender<VrrpEvent>>,
}

impl Vrrp {
    /// Starts one virtual router, or several that are master together or not at all: the inside and
    /// the outside of a gateway, IPv4 and IPv6. Start independent virtual routers by a call each.
    ///
    /// Starting needs `CAP_NET_RAW` and `CAP_NET_ADMIN`; with `CAP_SYS_NICE` the thread has real-time
    /// priority, and loses no address on a busy machine. The virtual routers run in the network
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// [`VrrpStartError`] names the setting that is not valid, or the operation that failed. No
    /// virtual router runs then.
    pub fn start(
        routers: impl IntoIterator<Item = VirtualRouterConfig>,
    ) -> Result<Self, VrrpStartError> {
        Self::start_with_notify(routers, [])
    }

    /// As [`start`](Self::start), with commands that run from the first state on, unlike those of
    /// [`run_on_transition`](Self::run_on_transition).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with_notify(
        routers: impl IntoIterator<Item = VirtualRouterConfig>,
        notify: impl IntoIterator<Item = NotifyCommands>,
    ) -> Result<Self, VrrpStartError> {
        let routers: Vec<_> = routers.into_iter().collect();
        validate(&routers)?;
        Self::spawn(routers, notify.into_iter().collect())
    }

    #[cfg(not(target_os = "linux"))]
    fn spawn(_: Vec<VirtualRouterConfig>, _: Vec<NotifyCommands>) -> Result<Self, VrrpStartError> {
        Err(VrrpStartError::Unsupported)
    }

    #[cfg(target_os = "linux")]
    fn spawn(
        routers: Vec<VirtualRouterConfig>,
        notify: Vec<NotifyCommands>,
    ) -> Result<Self, VrrpStartError> {
        use crate::histogram::AtomicHistogram;
        use crate::vrrp::VrrpSyncGroup;

        let configs = routers.clone();
        let tracks = routers.iter().flat_map(|router| &router.tracks);
        let tracks = tracks.map(|(name, _)| name.clone()).collect();
        let elections = routers.iter().map(|router| router.election.clone());
        let sync_group = VrrpSyncGroup::new(elections).map_err(|source| {
            VrrpStartError::Config { router_name: routers[0].name.clone(), source }
        })?;
        let wrap_io = VrrpStartError::wrap_io;
        let mut netlink = RtnetlinkSocket::open().map_err(wrap_io("open a netlink socket"))?;
        let monitor = RtnetlinkMonitor::open(&[
            RtnetlinkGroup::Links,
            RtnetlinkGroup::Ipv4Addresses,
            RtnetlinkGroup::Ipv6Addresses,
        ])
        .map_err(wrap_io("open a netlink socket"))?;
        let wakeup = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wakeup = wakeup.map_err(|error| wrap_io("create an eventfd")(error.into()))?;
        let wakeup = Arc::new(wakeup);
        let mut instances = Vec::new();
        for router in routers {
            instances.push(VrrpInstance::open(router, &mut netlink, now())?);
        }
        let (commands, receiver) = channel();
        let events = Arc::new(EventSender::new());
        let weak_events = Arc::downgrade(&events);
        let initial_events = events.subscribe();
        // The threads end with the events, also if the start fails below.
        let (notify_events, notify_threads) = spawn_notify(notify);
        let is_master = Arc::new(AtomicBool::new(false));
        let data = VrrpThread {
            instances,
            sync_group,
            netlink,
            monitor,
            commands: receiver,
            wakeup: Arc::clone(&wakeup),
            is_master: Arc::clone(&is_master),
            events,
            notify_events,
            lateness: AtomicHistogram::default(),
            is_realtime: false,
        };
        let thread = std::thread::Builder::new().name("vrrp".into());
        let thread = thread.spawn(|| data.run()).map_err(wrap_io("start the VRRP thread"))?;
        Ok(Self {
            thread: Mutex::new(Some(thread)),
            commands,
            wakeup,
            is_master,
            tracks: Mutex::new(tracks),
            initial_events: Mutex::new(Some(initial_events)),
            configs: Mutex::new(configs),
            notify_threads: Mutex::new(notify_threads),
            events: weak_events,
        })
    }

    /// Changes the virtual routers to other configurations while they run: the priority, the interval,
    /// preemption, addresses, routes, tracked items, keys and names. A master stays master, and only the
    /// addresses that are new or gone are added or removed. The notify commands replace those of
    /// [`start_with_notify`](Self::start_with_notify). Waits for the thread's reply, at most a second.
    ///
    /// Returns `false`, and changes nothing, if the virtual routers are not the same ones: another number
    /// of them, another interface, number, family, version, source address, peer or virtual MAC, or the
    /// priority 255. Such a change needs another start.
    ///
    /// # Errors
    /// [`VrrpStartError`] names the setting that is not valid, or an address that the machine has
    /// already; nothing has changed.
    pub fn reconfigure(
        &self,
        routers: impl IntoIterator<Item = VirtualRouterConfig>,
        notify: impl IntoIterator<Item = NotifyCommands>,
    ) -> Result<bool, VrrpStartError> {
        let routers: Vec<_> = routers.into_iter().collect();
        validate(&routers)?;
        #[cfg(target_os = "linux")]
        {
            let mut configs = lock(&self.configs);
            let is_same = configs.len() == routers.len()
                && configs.iter().zip(&routers).all(|(old, new)| old.is_same_router(new));
            if !is_same {
                return Ok(false);
            }
            let (sender, reply) = sync_channel(1);
            self.send_command(VrrpCommand::Reconfigure(routers.clone(), sender));
            // Without a reply the thread is stalled or has ended.
            let Ok(result) = reply.recv_timeout(REPLY_TIMEOUT) else { return Ok(false) };
            result?;
            let mut tracks = lock(&self.tracks);
            for (name, _) in configs.iter().flat_map(|router| &router.tracks) {
                tracks.remove(name);
            }
            tracks.extend(
                routers.iter().flat_map(|router| &router.tracks).map(|(name, _)| name.clone()),
            );
            *configs = routers;
            let (events, threads) = spawn_notify(notify);
            self.send_command(VrrpCommand::ReplaceNotify(events));
            let mut notify_threads = lock(&self.notify_threads);
            notify_threads.retain(|thread| !thread.is_finished());
            notify_threads.extend(threads);
            Ok(true)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = notify;
            Err(VrrpStartError::Unsupported)
        }
    }

    /// Tells whether the virtual routers are master. The value is some microseconds old: it changes
    /// after the addresses are added or removed.
    #[must_use]
    pub fn is_master(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.is_master.load(Ordering::Acquire);
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Sets whether a [tracked item](VirtualRouterConfig::track) is up, for all virtual routers that
    /// track it.
    ///
    /// # Errors
    /// [`UnknownTrack`] if no virtual router tracks an item of this name.
    pub fn set_track(&self, name: &str, is_up: bool) -> Result<(), UnknownTrack> {
        if !lock(&self.tracks).contains(name) {
            return Err(UnknownTrack(name.to_owned()));
        }
        #[cfg(target_os = "linux")]
        self.send_command(VrrpCommand::SetTrack(name.to_owned(), is_up));
        let _ = is_up;
        Ok(())
    }

    /// Adds a tracked item to all virtual routers; does nothing if there is an item of this name. The
    /// item is up until [`set_track`](Self::set_track) changes it.
    pub fn add_track(&self, name: &str, effect: TrackEffect) {
        if lock(&self.tracks).insert(name.to_owned()) {
            #[cfg(target_os = "linux")]
            self.send_command(VrrpCommand::AddTrack(name.to_owned(), effect));
        }
        let _ = effect;
    }

    /// Removes a tracked item and its effect on the priority; does nothing if there is none of this
    /// name.
    pub fn remove_track(&self, name: &str) {
        if lock(&self.tracks).remove(name) {
            #[cfg(target_os = "linux")]
            self.send_command(VrrpCommand::RemoveTrack(name.to_owned()));
        }
    }

    /// Holds back that this router replaces a master of lower priority, or allows it again: for a
    /// director that is not ready to take over. It becomes master all the same if there is none.
    /// Default: it is allowed.
    pub fn hold_preemption(&self, is_held: bool) {
        #[cfg(target_os = "linux")]
        self.send_command(VrrpCommand::HoldPreemption(is_held));
        let _ = is_held;
    }

    /// Announces the addresses on the link once more, if the virtual router is master: for use after a
    /// switch was replaced.
    pub fn announce(&self) {
        #[cfg(target_os = "linux")]
        self.send_command(VrrpCommand::Announce);
    }

    /// Returns the status; `None` if the thread does not reply within a second, which means that it is
    /// stalled or has ended.
    #[must_use]
    pub fn status(&self) -> Option<VrrpStatus> {
        #[cfg(target_os = "linux")]
        {
            let (sender, reply) = sync_channel(1);
            self.send_command(VrrpCommand::Status(sender));
            reply.recv_timeout(REPLY_TIMEOUT).ok()
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Returns a reader of the events from now on; that of the first call has the events since the
    /// start. See [`Events`](crate::events::Events).
    #[must_use]
    pub fn events(&self) -> VrrpEvents {
        #[cfg(target_os = "linux")]
        if let Some(initial_events) = lock(&self.initial_events).take() {
            return initial_events;
        } else if let Some(sender) = self.events.upgrade() {
            return sender.subscribe();
        }
        // Without its sender, the stream has ended.
        EventSender::new().subscribe()
    }

    /// Runs commands when a virtual router changes its state from now on, in a thread of their own.
    pub fn run_on_transition(&self, notify: NotifyCommands) {
        let thread = notify.spawn(self.events());
        #[cfg(target_os = "linux")]
        lock(&self.notify_threads).extend(thread);
        #[cfg(not(target_os = "linux"))]
        drop(thread);
    }

    /// Stops the virtual routers: a master resigns, keeps its addresses until it receives its
    /// successor's advertisement, and then releases them. Blocks until that is done: for an interval
    /// and a quarter if no router takes over. Afterwards there is no status, and the events end. Waits
    /// for the notify commands of the last state too, at most for their timeouts.
    pub fn stop(&self) {
        #[cfg(target_os = "linux")]
        {
            self.send_command(VrrpCommand::Stop);
            let thread = lock(&self.thread).take();
            // If the thread has panicked, the lifetimes of the addresses end.
            thread.map(JoinHandle::join);
            let notify_threads = std::mem::take(&mut *lock(&self.notify_threads));
            for thread in notify_threads {
                // A panic of `on_failure` ended that thread.
                let _ = thread.join();
            }
        }
    }

    /// Checks the configurations without system calls, as [`start`](Self::start) does first.
    #[cfg(feature = "director")]
    pub(crate) fn validate(routers: &[VirtualRouterConfig]) -> Result<(), VrrpStartError> {
        validate(routers)
    }

    /// Returns the address that a virtual router on this interface sends from by default: the first
    /// permanent address, and over IPv6 the first permanent link-local address.
    ///
    /// # Errors
    /// [`VrrpStartError::UnknownInterface`] and [`VrrpStartError::NotEthernet`] for the interface,
    /// [`VrrpStartError::NoSource`] if the interface has no such address.
    pub fn default_source(interface: &str, is_v6: bool) -> Result<IpAddr, VrrpStartError> {
        #[cfg(target_os = "linux")]
        {
            let mut netlink = RtnetlinkSocket::open()
                .map_err(VrrpStartError::wrap_io("open a netlink socket"))?;
            default_source(interface, is_v6, &mut netlink)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (interface, is_v6);
            Err(VrrpStartError::Unsupported)
        }
    }

    /// Makes the thread panic.
    #[cfg(all(test, target_os = "linux", feature = "director"))]
    pub(crate) fn panic_thread(&self) {
        self.send_command(VrrpCommand::Panic);
    }

    #[cfg(target_os = "linux")]
    fn send_command(&self, command: VrrpCommand) {
        // Fails if the thread has ended; then there is no reply either.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&*self.wakeup, &1_u64.to_ne_bytes());
    }
}

impl Drop for Vrrp {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the threads of notify commands, and returns them with the sender of their events.
#[cfg(target_os = "linux")]
fn spawn_notify(
    notify: impl IntoIterator<Item = NotifyCommands>,
) -> (EventSender<VrrpEvent>, Vec<JoinHandle<()>>) {
    let events = EventSender::new();
    let spawn = |commands: NotifyCommands| commands.spawn(events.subscribe());
    let threads = notify.into_iter().filter_map(spawn).collect();
    (events, threads)
}

/// Validates the configurations without system calls.
fn validate(routers: &[VirtualRouterConfig]) -> Result<(), VrrpStartError> {
    if routers.is_empty() {
        return Err(VrrpStartError::NoVirtualRouters);
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for router in routers {
        let (election, name) = (&router.election, &router.name);
        let config_error = |source| VrrpStartError::Config { router_name: name.clone(), source };
        let number = (&router.interface, election.vrid, election.source.is_ipv6());
        if !names.insert(name) || !numbers.insert(number) {
            return Err(VrrpStartError::Duplicate(name.clone()));
        }
        election.validate().map_err(config_error)?;
        let addresses: Vec<_> = router.addresses.iter().map(super::VirtualAddress::ip).collect();
        if addresses.is_empty() {
            return Err(config_error(VrrpConfigError::NoAddresses));
        }
        let message = OutgoingAdvert {
            version: election.version,
            vrid: election.vrid,
            priority: election.priority,
            interval: election.interval,
            addresses: &addresses,
        };
        let encoded = message.encode(election.source, election.source, router.checksum);
        encoded.map_err(config_error)?;
        for peer in &router.peers {
            if peer.is_ipv6() != election.source.is_ipv6() {
                return Err(VrrpStartError::PeerFamily(*peer, election.source));
            }
        }
    }
    Ok(())
}
