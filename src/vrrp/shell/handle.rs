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
use super::Event;
use super::{Events, Notify, StartError, View, VirtualRouter};
#[cfg(target_os = "linux")]
use super::{
    instance::Instance,
    netlink::{Netlink, Watch},
    thread::{Command, Routers, now},
};
use crate::sync::{Mutex, lock};
use crate::vrrp::{ConfigError, Impact, Message, UnknownTrack};

/// How many events wait for a reader.
const EVENTS: usize = 1024;
/// How long an answer of the thread may take.
#[cfg(target_os = "linux")]
const PATIENCE: Duration = Duration::from_secs(1);

/// Virtual routers that run, in a thread of their own, and are master together or not at all.
///
/// Dropped, they [stop](Self::stop). What becomes of the addresses when the process dies is told at the
/// [module](crate::vrrp#when-a-master-dies).
///
/// All methods may be called from any thread, and from async tasks: [`view`](Self::view) waits for
/// an answer, of microseconds. [Stopping](Self::stop) takes longer, and blocks.
#[derive(Debug)]
pub struct Vrrp {
    #[cfg(target_os = "linux")]
    thread: Mutex<Option<JoinHandle<()>>>,
    #[cfg(target_os = "linux")]
    commands: Sender<Command>,
    #[cfg(target_os = "linux")]
    wake: Arc<OwnedFd>,
    #[cfg(target_os = "linux")]
    is_master: Arc<AtomicBool>,
    tracks: Mutex<BTreeSet<String>>,
    /// Events from the start on, until somebody asks for them.
    #[cfg(target_os = "linux")]
    first: Mutex<Option<Receiver<Event>>>,
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
    /// [`StartError`] names what is missing. Nothing has been changed then.
    pub fn start(routers: impl IntoIterator<Item = VirtualRouter>) -> Result<Self, StartError> {
        let routers: Vec<_> = routers.into_iter().collect();
        check(&routers)?;
        Self::begin(routers)
    }

    #[cfg(not(target_os = "linux"))]
    fn begin(_: Vec<VirtualRouter>) -> Result<Self, StartError> {
        Err(StartError::Unsupported)
    }

    #[cfg(target_os = "linux")]
    fn begin(routers: Vec<VirtualRouter>) -> Result<Self, StartError> {
        use crate::histogram::Histogram;
        use crate::vrrp::Group;

        let tracks = routers.iter().flat_map(|it| it.tracks.iter().map(|(name, _)| name.clone()));
        let tracks = tracks.collect();
        let elections = routers.iter().map(|it| it.election.clone());
        let group = Group::new(elections)
            .map_err(|source| StartError::Config { router: routers[0].name.clone(), source })?;
        let doing = StartError::doing;
        let mut netlink = Netlink::open().map_err(doing("open a netlink socket"))?;
        let watch = Watch::open().map_err(doing("open a netlink socket"))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(|error| doing("make an eventfd")(error.into()))?);
        let mut instances = Vec::new();
        for router in routers {
            instances.push(Instance::open(router, &mut netlink, now())?);
        }
        let (commands, receiver) = channel();
        let (subscriber, first) = sync_channel(EVENTS);
        let is_master = Arc::new(AtomicBool::new(false));
        let routers = Routers {
            instances,
            group,
            netlink,
            watch,
            commands: receiver,
            wake: Arc::clone(&wake),
            is_master: Arc::clone(&is_master),
            subscribers: vec![subscriber],
            lost: 0,
            lateness: Histogram::default(),
            is_realtime: false,
        };
        let thread = std::thread::Builder::new().name("vrrp".into());
        let thread = thread.spawn(|| routers.run()).map_err(doing("start a thread"))?;
        Ok(Self {
            thread: Mutex::new(Some(thread)),
            commands,
            wake,
            is_master,
            tracks: Mutex::new(tracks),
            first: Mutex::new(Some(first)),
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

    /// Says whether something that is [tracked](VirtualRouter::track) is up, for all routers that do.
    ///
    /// # Errors
    /// [`UnknownTrack`] if none does.
    pub fn set(&self, name: &str, is_up: bool) -> Result<(), UnknownTrack> {
        if !lock(&self.tracks).contains(name) {
            return Err(UnknownTrack(name.to_owned()));
        }
        #[cfg(target_os = "linux")]
        self.tell(Command::Track(name.to_owned(), is_up));
        let _ = is_up;
        Ok(())
    }

    /// Tracks something more, for all routers; up, until [`set`](Self::set) says otherwise.
    pub fn track(&self, name: &str, impact: Impact) {
        if lock(&self.tracks).insert(name.to_owned()) {
            #[cfg(target_os = "linux")]
            self.tell(Command::Enter(name.to_owned(), impact));
        }
        let _ = impact;
    }

    /// Tracks it no longer, and takes back what followed from it.
    pub fn untrack(&self, name: &str) {
        if lock(&self.tracks).remove(name) {
            #[cfg(target_os = "linux")]
            self.tell(Command::Leave(name.to_owned()));
        }
    }

    /// Tells the link once more where the addresses are, if it is master: for an operator who has
    /// changed a switch.
    pub fn announce(&self) {
        #[cfg(target_os = "linux")]
        self.tell(Command::Announce);
    }

    /// How it stands; `None` if the thread does not answer within a second, which is bad news.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        #[cfg(target_os = "linux")]
        {
            let (answer, view) = sync_channel(1);
            self.tell(Command::View(answer));
            view.recv_timeout(PATIENCE).ok()
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// What happens from now on; who asks first is told what has happened since the start.
    #[must_use]
    pub fn events(&self) -> Events {
        #[cfg(target_os = "linux")]
        if let Some(first) = lock(&self.first).take() {
            return Events(first);
        }
        let (sender, receiver) = sync_channel(EVENTS);
        #[cfg(target_os = "linux")]
        self.tell(Command::Subscribe(sender));
        #[cfg(not(target_os = "linux"))]
        drop(sender);
        Events(receiver)
    }

    /// Runs commands when the state changes.
    pub fn notify(&self, notify: Notify) {
        notify.follow(self.events());
    }

    /// Stops: a master says farewell, has its addresses until it hears its successor, and gives them
    /// up. Waits until that is done: an interval and a quarter, if nobody takes over.
    pub fn stop(self) {
        drop(self);
    }

    /// As [`stop`](Self::stop), for one that others hold too: views and events end.
    pub fn halt(&self) {
        #[cfg(target_os = "linux")]
        {
            self.tell(Command::Stop);
            let thread = lock(&self.thread).take();
            // If it has panicked its addresses go by themselves.
            thread.map(JoinHandle::join);
        }
    }

    /// The address that a router on this interface would send from: the first that is there for good,
    /// and over IPv6 the link-local one.
    ///
    /// # Errors
    /// [`StartError::Interface`], or [`StartError::NoSource`] if the interface has none.
    pub fn source(interface: &str, is_v6: bool) -> Result<IpAddr, StartError> {
        #[cfg(target_os = "linux")]
        {
            let mut netlink =
                Netlink::open().map_err(StartError::doing("open a netlink socket"))?;
            super::instance::source(interface, is_v6, &mut netlink)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (interface, is_v6);
            Err(StartError::Unsupported)
        }
    }

    #[cfg(target_os = "linux")]
    fn tell(&self, command: Command) {
        // Whoever does not listen any more has ended, which the reader of the answer sees.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Vrrp {
    fn drop(&mut self) {
        self.halt();
    }
}

/// What can be known without asking the system.
fn check(routers: &[VirtualRouter]) -> Result<(), StartError> {
    if routers.is_empty() {
        return Err(StartError::Empty);
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for router in routers {
        let (election, name) = (&router.election, &router.name);
        let wrong = |source| StartError::Config { router: name.clone(), source };
        let is_new = numbers.insert((&router.interface, election.id, election.address.is_ipv6()));
        if !names.insert(name) || !is_new {
            return Err(StartError::Twice(name.clone()));
        }
        election.check().map_err(wrong)?;
        let addresses: Vec<_> = router.addresses.iter().map(super::VirtualAddress::ip).collect();
        if addresses.is_empty() {
            return Err(wrong(ConfigError::Addresses { count: 0, odd: None }));
        }
        let message = Message {
            version: election.version,
            router: election.id,
            priority: election.priority,
            interval: election.interval,
            addresses: &addresses,
        };
        let written = message.write(election.address, election.address, router.checksum);
        written.map_err(wrong)?;
        for peer in &router.peers {
            if peer.is_ipv6() != election.address.is_ipv6() {
                return Err(StartError::Peer(*peer, election.address));
            }
        }
    }
    Ok(())
}
