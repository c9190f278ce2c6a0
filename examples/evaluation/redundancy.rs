//! What clients notice of a failure, under a steady load.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use rustix::process::Signal;

use crate::balancer::{ADVERT, Balancer, CHECK, Real, Vrrp, Wanted, Whose};
use crate::clock;
use crate::cluster::{load_words, server};
use crate::measure::{Asked, Seen, read};
use crate::plan::{Plan, SERVER};
use crate::process::{Error, Place, Process, free, pause, until};
use crate::world::{VIRTUAL, World};

/// Requests in a second: what one of the four servers could do.
pub(crate) const RATE: f64 = 400.0;
const SERVERS: u8 = 4;
/// Before the fault, and after it.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// When what failed comes back, where it does.
const BACK: Duration = Duration::from_secs(1);
/// The priorities of the two directors.
const PRIORITIES: [(&str, u8); 2] = [("a", 150), ("b", 100)];

/// What fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    ServerKilled,
    ServerHeldUp,
    ServerRestarted,
    DirectorKilled,
    DirectorHeldUp,
    DirectorCutOff,
    DirectorStopped,
    DirectorBack,
    Both,
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::ServerKilled,
        Self::ServerHeldUp,
        Self::ServerRestarted,
        Self::DirectorKilled,
        Self::DirectorHeldUp,
        Self::DirectorCutOff,
        Self::DirectorStopped,
        Self::DirectorBack,
        Self::Both,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ServerKilled => "a real server is killed",
            Self::ServerHeldUp => "a real server is stopped (SIGSTOP)",
            Self::ServerRestarted => "a real server is killed, and back after a second",
            Self::DirectorKilled => "the active director is killed",
            Self::DirectorHeldUp => "the active director is stopped (SIGSTOP)",
            Self::DirectorCutOff => "the active director is cut off (its link)",
            Self::DirectorStopped => "the active director ends in order (SIGTERM)",
            Self::DirectorBack => "the first director comes back",
            Self::Both => "a real server and the active director are killed",
        }
    }

    pub(crate) fn is_of_a_server(self) -> bool {
        matches!(self, Self::ServerKilled | Self::ServerHeldUp | Self::ServerRestarted)
    }

    /// After which [time](Outcome::time) no request that begins is lost.
    pub(crate) fn promise(self) -> Duration {
        // RFC 9568, section 6.1.
        let skew = ADVERT * (256 - u32::from(PRIORITIES[1].1)) / 256;
        match self {
            // Until the next check begins, and two that wait in vain; the beat varies by a
            // twentieth.
            Self::ServerKilled | Self::ServerHeldUp | Self::ServerRestarted => CHECK * 63 / 20,
            Self::DirectorStopped => skew,
            Self::DirectorBack => ADVERT,
            Self::DirectorKilled | Self::DirectorHeldUp | Self::DirectorCutOff | Self::Both => {
                ADVERT * 3 + skew
            }
        }
    }
}

/// What clients noticed.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) whose: Whose,
    pub(crate) fault: Fault,
    pub(crate) asked: Vec<Asked>,
    /// When it happened.
    pub(crate) at: Duration,
    pub(crate) seen: Seen,
    /// What the active director had of a processor before it happened, and the other one through
    /// all of it.
    pub(crate) cpu: [f64; 2],
}

impl Outcome {
    fn lost(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|it| it.is_lost())
    }

    pub(crate) fn lost_count(&self) -> usize {
        self.lost().count()
    }

    /// From the first request that was lost to the last, by when they were to be sent.
    pub(crate) fn gap(&self) -> Duration {
        let first = self.lost().map(Asked::at).min().unwrap_or_default();
        self.lost().map(Asked::at).max().unwrap_or_default() - first
    }

    /// How long after it the last request was sent that was lost.
    pub(crate) fn last(&self) -> Duration {
        self.lost().map(Asked::at).max().unwrap_or_default().saturating_sub(self.at)
    }

    /// What the promise is about: the time in which requests were lost, since it happened. A director
    /// that comes back takes over when it has listened; from there on it counts.
    pub(crate) fn time(&self) -> Duration {
        if self.fault == Fault::DirectorBack { self.gap() } else { self.last() }
    }

    /// Tells whether the promise was kept, but for a tenth: nobody is told at what moment of the
    /// interval it happened, and taking over takes some milliseconds.
    pub(crate) fn is_kept(&self) -> bool {
        self.time() <= self.fault.promise() * 11 / 10
    }
}

/// What was run, and what was left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redundancy {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) left_out: Option<&'static str>,
}

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Redundancy, Error> {
    let world = World::new();
    let mut outcomes = Vec::new();
    for &fault in plan.faults {
        for whose in plan.pairs() {
            bar.set_message(format!("{}: {}", whose.name(), fault.name()));
            if world.is_some() || fault.is_of_a_server() {
                outcomes.push(fail(world.as_ref(), folder, whose, fault)?);
            }
            bar.inc(1);
        }
    }
    let left_out = world.is_none().then_some(
        "Failures of directors were left out: they need network namespaces, which need root. \
         Real servers failed behind one director, on loopback.",
    );
    Ok(Redundancy { outcomes, left_out })
}

/// Where things are.
struct Site<'a> {
    world: Option<&'a World>,
    folder: &'a Path,
    whose: Whose,
    servers: Vec<Real>,
    service: SocketAddr,
}

impl<'a> Site<'a> {
    fn new(world: Option<&'a World>, folder: &'a Path, whose: Whose) -> Result<Self, Error> {
        let address = |number: u8| match world {
            Some(_) => Ok(SocketAddr::from(([10, 88, 0, 3], 9000 + u16::from(number)))),
            None => free(),
        };
        let servers = (1..=SERVERS)
            .map(|it| Ok(Real { address: address(it)?, weight: 1, most: None }))
            .collect::<Result<_, Error>>()?;
        let service = match world {
            Some(_) => SocketAddr::new(VIRTUAL.parse()?, 80),
            None => free()?,
        };
        Ok(Self { world, folder, whose, servers, service })
    }

    fn place(&self, side: &str) -> Place {
        Place(self.world.map(|world| world.space(side)))
    }

    fn server(&self, number: u8) -> Result<Process, Error> {
        let address = self.servers[usize::from(number) - 1].address;
        server(&self.place("c"), self.folder, number, address, Some(SERVER))
    }

    fn director(&self, (side, priority): (&str, u8)) -> Result<Balancer, Error> {
        let vrrp = self.world.map(|_| Vrrp { address: VIRTUAL, priority });
        let rule = self.whose.round_robin();
        let wanted = Wanted { listen: self.service, servers: &self.servers, rule, vrrp };
        Balancer::start(self.whose, &self.place(side), (self.folder, side), &wanted)
    }

    /// Waits until clients are served, through the director on that side.
    fn settle(&self, side: &str) -> Result<(), Error> {
        if let Some(world) = self.world {
            let other = if side == "a" { "b" } else { "a" };
            until("a director has the address", || world.has(side, VIRTUAL))?;
            until("the other has not", || !world.has(other, VIRTUAL))?;
            until("clients are served", || world.ask(80).is_ok())?;
            let mac = world.mac(side);
            until("clients know where", || world.neighbour(VIRTUAL).contains(&mac))?;
        }
        // What begins is over: late announcements, first checks.
        pause(Duration::from_millis(500))
    }

    /// Nothing is left of the address.
    fn clear(&self) -> Result<(), Error> {
        let Some(world) = self.world else { return Ok(()) };
        for (side, _) in PRIORITIES {
            until("the address is gone", || {
                let address = format!("{VIRTUAL}/24");
                let _ = world.try_on(side, &["addr", "del", &address, "dev", "eth0"]);
                !world.has(side, VIRTUAL)
            })?;
        }
        Ok(())
    }
}

/// One failure, from the start of all to its end.
fn fail(
    world: Option<&World>,
    folder: &Path,
    whose: Whose,
    fault: Fault,
) -> Result<Outcome, Error> {
    let site = Site::new(world, folder, whose)?;
    let mut servers = (1..=SERVERS).map(|it| site.server(it)).collect::<Result<Vec<_>, _>>()?;
    let [first, second] = PRIORITIES;
    let is_back = fault == Fault::DirectorBack;
    let standby = world.is_some().then(|| site.director(second)).transpose()?;
    let mut active = (!is_back).then(|| site.director(first)).transpose()?;
    site.settle(if is_back { second.0 } else { first.0 })?;

    let output = folder.join("asked.csv");
    let words = load_words(site.service, RATE, BEFORE + AFTER, &output, world.is_none());
    let mut clients = Process::part(&site.place("c"), (folder, "load"), &words)?;
    let cpu = |of: &Option<Balancer>| of.as_ref().map_or(Duration::ZERO, |it| it.carrier().cpu());
    let (begun, before) = (clock::now(), [cpu(&active), cpu(&standby)]);
    pause(BEFORE)?;
    let at = clock::now();
    let share = |had: Duration, before: Duration| {
        (had.saturating_sub(before)).as_secs_f64() / (clock::now() - begun).as_secs_f64()
    };
    let of_active = share(cpu(&active), before[0]);
    let tell = |signal| active.as_ref().map_or(Ok(()), |active: &Balancer| active.signal(signal));
    match fault {
        Fault::ServerKilled | Fault::ServerRestarted => servers[0].signal(Signal::KILL)?,
        Fault::ServerHeldUp => servers[0].signal(Signal::STOP)?,
        Fault::DirectorKilled => tell(Signal::KILL)?,
        Fault::DirectorHeldUp => tell(Signal::STOP)?,
        Fault::DirectorStopped => tell(Signal::TERM)?,
        Fault::DirectorCutOff => world.into_iter().for_each(|world| world.link(first.0, false)),
        Fault::DirectorBack => active = Some(site.director(first)?),
        Fault::Both => {
            servers[0].signal(Signal::KILL)?;
            tell(Signal::KILL)?;
        }
    }
    if fault == Fault::ServerRestarted {
        pause(BACK)?;
        servers[0] = site.server(1)?;
    }
    clients.wait()?;
    let cpu = [of_active, share(cpu(&standby), before[1])];
    if fault == Fault::DirectorCutOff {
        world.into_iter().for_each(|world| world.link(first.0, true));
    }
    for director in [active, standby].into_iter().flatten() {
        director.end()?;
    }
    site.clear()?;
    let asked = read(&output)?;
    let seen = Seen::new(&asked, BEFORE + AFTER);
    Ok(Outcome { whose, fault, asked, at, seen, cpu })
}
