//! Virtual routers that run.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::sync_channel;
#[cfg(target_os = "linux")]
use std::{
    os::fd::OwnedFd,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    sync::mpsc::{Receiver, Sender, channel},
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
    netlink::{RtnetlinkMonitor, RtnetlinkSocket},
    thread::{VrrpCommand, VrrpThread, now},
};
use crate::sync::{Mutex, lock};
use crate::vrrp::{OutgoingAdvert, TrackEffect, UnknownTrack, VrrpConfigError};

/// How many events wait for a reader.
const MAX_QUEUED_EVENTS: usize = 1024;
/// How long an answer of the thread may take.
#[cfg(target_os = "linux")]
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Virtual routers that run, in a thread of their own, and are master together or not at all.
///
/// Dropped, they [stop](Self::stop). What becomes of the addresses when the process dies is told at the
/// [module](crate::vrrp#when-a-master-dies).
///
/// All methods may be called from any thread, and from async tasks: [`status`](Self::status) waits for
/// an answer, of microseconds. [Stopping](Self::stop) takes longer, and blocks.
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
    tracks: Mutex<BTreeSet<String>>,
    /// Events from the start on, until somebody asks for them.
    #[cfg(target_os = "linux")]
    initial_events: Mutex<Option<Receiver<VrrpEvent>>>,
}

impl Vrrp {
    /// Starts one virtual router, or several that are master together or not at all: the inside and
    /// the outside of a gateway, IPv4 and IPv6. Start those that have nothing to do with each other
    /// one by one.
    ///
    /// It needs `CAP_NET_RAW` and `CAP_NET_ADMIN`; with `CAP_SYS_NICE` its thread goes before all
    /// others, and loses no address on a busy machine. It takes the network namespace of the thread
    /// that calls.
    ///
    /// # Errors
    /// [`VrrpStartError`] names what is missing. Nothing has been changed then.
    pub fn start(
        routers: impl IntoIterator<Item = VirtualRouterConfig>,
    ) -> Result<Self, VrrpStartError> {
        let routers: Vec<_> = routers.into_iter().collect();
        validate(&routers)?;
        Self::begin(routers)
    }

    #[cfg(not(target_os = "linux"))]
    fn begin(_: Vec<VirtualRouterConfig>) -> Result<Self, VrrpStartError> {
        Err(VrrpStartError::Unsupported)
    }

    #[cfg(target_os = "linux")]
    fn begin(routers: Vec<VirtualRouterConfig>) -> Result<Self, VrrpStartError> {
        use crate::histogram::AtomicHistogram;
        use crate::vrrp::VrrpSyncGroup;

        let tracks = routers.iter().flat_map(|it| it.tracks.iter().map(|(name, _)| name.clone()));
        let tracks = tracks.collect();
        let elections = routers.iter().map(|it| it.election.clone());
        let group = VrrpSyncGroup::new(elections)
            .map_err(|source| VrrpStartError::Config { router: routers[0].name.clone(), source })?;
        let doing = VrrpStartError::wrap_io;
        let mut netlink = RtnetlinkSocket::open().map_err(doing("open a netlink socket"))?;
        let watch = RtnetlinkMonitor::open().map_err(doing("open a netlink socket"))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(|error| doing("make an eventfd")(error.into()))?);
        let mut instances = Vec::new();
        for router in routers {
            instances.push(VrrpInstance::open(router, &mut netlink, now())?);
        }
        let (commands, receiver) = channel();
        let (subscriber, first) = sync_channel(MAX_QUEUED_EVENTS);
        let is_master = Arc::new(AtomicBool::new(false));
        let routers = VrrpThread {
            instances,
            sync_group: group,
            netlink,
            monitor: watch,
            commands: receiver,
            wakeup: Arc::clone(&wake),
            is_master: Arc::clone(&is_master),
            subscribers: vec![subscriber],
            events_lost: 0,
            lateness: AtomicHistogram::default(),
            is_realtime: false,
        };
        let thread = std::thread::Builder::new().name("vrrp".into());
        let thread = thread.spawn(|| routers.run()).map_err(doing("start a thread"))?;
        Ok(Self {
            thread: Mutex::new(Some(thread)),
            commands,
            wakeup: wake,
            is_master,
            tracks: Mutex::new(tracks),
            initial_events: Mutex::new(Some(first)),
        })
    }

    /// Is it master? What it was a moment ago: the addresses follow at once, this some microseconds
    /// later.
    #[must_use]
    pub fn is_master(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.is_master.load(Ordering::Acquire);
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Says whether something that is [tracked](VirtualRouterConfig::track) is up, for all routers that do.
    ///
    /// # Errors
    /// [`UnknownTrack`] if none does.
    pub fn set_track(&self, name: &str, is_up: bool) -> Result<(), UnknownTrack> {
        if !lock(&self.tracks).contains(name) {
            return Err(UnknownTrack(name.to_owned()));
        }
        #[cfg(target_os = "linux")]
        self.send_command(VrrpCommand::SetTrack(name.to_owned(), is_up));
        let _ = is_up;
        Ok(())
    }

    /// Tracks something more, for all routers; up, until [`set_track`](Self::set_track) says otherwise.
    pub fn add_track(&self, name: &str, impact: TrackEffect) {
        if lock(&self.tracks).insert(name.to_owned()) {
            #[cfg(target_os = "linux")]
            self.send_command(VrrpCommand::AddTrack(name.to_owned(), impact));
        }
        let _ = impact;
    }

    /// Tracks it no longer, and takes back what followed from it.
    pub fn remove_track(&self, name: &str) {
        if lock(&self.tracks).remove(name) {
            #[cfg(target_os = "linux")]
            self.send_command(VrrpCommand::RemoveTrack(name.to_owned()));
        }
    }

    /// Tells the link once more where the addresses are, if it is master: for an operator who has
    /// changed a switch.
    pub fn announce(&self) {
        #[cfg(target_os = "linux")]
        self.send_command(VrrpCommand::Announce);
    }

    /// How it stands; `None` if the thread does not answer within a second, which is bad news.
    #[must_use]
    pub fn status(&self) -> Option<VrrpStatus> {
        #[cfg(target_os = "linux")]
        {
            let (answer, view) = sync_channel(1);
            self.send_command(VrrpCommand::Status(answer));
            view.recv_timeout(REPLY_TIMEOUT).ok()
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// What happens from now on; who asks first is told what has happened since the start.
    #[must_use]
    pub fn events(&self) -> VrrpEvents {
        #[cfg(target_os = "linux")]
        if let Some(first) = lock(&self.initial_events).take() {
            return VrrpEvents(first);
        }
        let (sender, receiver) = sync_channel(MAX_QUEUED_EVENTS);
        #[cfg(target_os = "linux")]
        self.send_command(VrrpCommand::Subscribe(sender));
        #[cfg(not(target_os = "linux"))]
        drop(sender);
        VrrpEvents(receiver)
    }

    /// Runs commands when the state changes.
    pub fn run_on_transition(&self, notify: NotifyCommands) {
        notify.spawn(self.events());
    }

    /// Stops: a master says farewell, has its addresses until it hears its successor, and gives them
    /// up. Waits until that is done: an interval and a quarter, if nobody takes over.
    pub fn stop(self) {
        drop(self);
    }

    /// As [`stop`](Self::stop), for one that others hold too: views and events end.
    pub fn shutdown(&self) {
        #[cfg(target_os = "linux")]
        {
            self.send_command(VrrpCommand::Stop);
            let thread = lock(&self.thread).take();
            // If it has panicked its addresses go by themselves.
            thread.map(JoinHandle::join);
        }
    }

    /// The address that a router on this interface would send from: the first that is there for good,
    /// and over IPv6 the link-local one.
    ///
    /// # Errors
    /// [`VrrpStartError::Interface`], or [`VrrpStartError::NoSource`] if the interface has none.
    pub fn default_source(interface: &str, is_v6: bool) -> Result<IpAddr, VrrpStartError> {
        #[cfg(target_os = "linux")]
        {
            let mut netlink = RtnetlinkSocket::open()
                .map_err(VrrpStartError::wrap_io("open a netlink socket"))?;
            super::instance::default_source(interface, is_v6, &mut netlink)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (interface, is_v6);
            Err(VrrpStartError::Unsupported)
        }
    }

    #[cfg(target_os = "linux")]
    fn send_command(&self, command: VrrpCommand) {
        // Whoever does not listen any more has ended, which the reader of the answer sees.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&*self.wakeup, &1_u64.to_ne_bytes());
    }
}

impl Drop for Vrrp {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// What can be known without asking the system.
fn validate(routers: &[VirtualRouterConfig]) -> Result<(), VrrpStartError> {
    if routers.is_empty() {
        return Err(VrrpStartError::NoVirtualRouters);
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for router in routers {
        let (election, name) = (&router.election, &router.name);
        let wrong = |source| VrrpStartError::Config { router: name.clone(), source };
        let is_new = numbers.insert((&router.interface, election.vrid, election.source.is_ipv6()));
        if !names.insert(name) || !is_new {
            return Err(VrrpStartError::Duplicate(name.clone()));
        }
        election.validate().map_err(wrong)?;
        let addresses: Vec<_> = router.addresses.iter().map(super::VirtualAddress::ip).collect();
        if addresses.is_empty() {
            return Err(wrong(VrrpConfigError::Addresses { count: 0, odd: None }));
        }
        let message = OutgoingAdvert {
            version: election.version,
            vrid: election.vrid,
            priority: election.priority,
            interval: election.interval,
            addresses: &addresses,
        };
        let written = message.encode(election.source, election.source, router.checksum);
        written.map_err(wrong)?;
        for peer in &router.peers {
            if peer.is_ipv6() != election.source.is_ipv6() {
                return Err(VrrpStartError::PeerFamily(*peer, election.source));
            }
        }
    }
    Ok(())
}
