//! The requests that a failure loses, under a constant load.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use rustix::process::Signal;

use crate::balancer::{Balancer, BalancerSpec, Product, Real, Vrrp};
use crate::clock;
use crate::cluster::{load_args, server};
use crate::fault::{Fault, PRIORITIES};
use crate::measure::{RequestRecord, RequestStats, read};
use crate::plan::{Plan, SERVER};
use crate::process::{Error, Namespace, Process, free_address, pause, wait_until};
use crate::world::{VIRTUAL, World};

/// Requests a second: the capacity of one of the four servers.
pub(crate) const RATE: f64 = 400.0;
const SERVERS: u8 = 4;
/// The measured time before the failure and after it.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// The time after which a killed server is restarted, where it is.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The measurement of a failure.
#[derive(Clone, Debug)]
pub(crate) struct FaultResult {
    pub(crate) product: Product,
    pub(crate) fault: Fault,
    pub(crate) requests: Vec<RequestRecord>,
    /// The moment of the failure.
    pub(crate) at: Duration,
    pub(crate) stats: RequestStats,
    /// CPU utilization of the active director before the failure, and of the standby over the whole
    /// run.
    pub(crate) cpu: [f64; 2],
}

impl FaultResult {
    fn lost(&self) -> impl Iterator<Item = &RequestRecord> {
        self.requests.iter().filter(|request| request.is_lost())
    }

    pub(crate) fn lost_count(&self) -> usize {
        self.lost().count()
    }

    /// Returns the time from the first lost request to the last, by their due moments.
    pub(crate) fn gap(&self) -> Duration {
        let first = self.lost().map(RequestRecord::at).min().unwrap_or_default();
        self.lost().map(RequestRecord::at).max().unwrap_or_default() - first
    }

    /// Returns the time from the failure to the last lost request.
    pub(crate) fn last_loss(&self) -> Duration {
        self.lost().map(RequestRecord::at).max().unwrap_or_default().saturating_sub(self.at)
    }

    /// Returns the time that the bound limits: from the failure to the last lost request. A restarted
    /// director listens before it takes over; its time counts from the first lost request.
    pub(crate) fn loss_time(&self) -> Duration {
        if self.fault == Fault::DirectorRestarted { self.gap() } else { self.last_loss() }
    }

    /// Returns whether the loss time is within the bound and a tenth: the moment of the failure
    /// within the check interval is unknown, and a takeover takes some milliseconds.
    pub(crate) fn is_within_bound(&self) -> bool {
        self.loss_time() <= self.fault.bound() * 11 / 10
    }
}

/// The measured failures, and why others were left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redundancy {
    pub(crate) outcomes: Vec<FaultResult>,
    pub(crate) left_out: Option<&'static str>,
}

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Redundancy, Error> {
    let world = World::new();
    let mut outcomes = Vec::new();
    for &fault in plan.faults {
        for product in plan.pairs() {
            bar.set_message(format!("{}: {}", product.name(), fault.name()));
            if world.is_some() || fault.is_of_server() {
                outcomes.push(fail(world.as_ref(), folder, product, fault)?);
            }
            bar.inc(1);
        }
    }
    let left_out = world.is_none().then_some(
        "Failures of directors were left out, because network namespaces need root. \
         Failures of real servers were run on loopback, behind one director.",
    );
    Ok(Redundancy { outcomes, left_out })
}

/// The addresses and namespaces of a run.
struct Site<'a> {
    world: Option<&'a World>,
    folder: &'a Path,
    product: Product,
    servers: Vec<Real>,
    service: SocketAddr,
}

impl<'a> Site<'a> {
    fn new(world: Option<&'a World>, folder: &'a Path, product: Product) -> Result<Self, Error> {
        let address = |number: u8| match world {
            Some(_) => Ok(SocketAddr::from(([10, 88, 0, 3], 9000 + u16::from(number)))),
            None => free_address(),
        };
        let servers = (1..=SERVERS)
            .map(|number| Ok(Real { address: address(number)?, weight: 1, max_connections: None }))
            .collect::<Result<_, Error>>()?;
        let service = match world {
            Some(_) => SocketAddr::new(VIRTUAL.parse()?, 80),
            None => free_address()?,
        };
        Ok(Self { world, folder, product, servers, service })
    }

    fn namespace(&self, side: &str) -> Namespace {
        Namespace(self.world.map(|world| world.space(side)))
    }

    fn server(&self, number: u8) -> Result<Process, Error> {
        let address = self.servers[usize::from(number) - 1].address;
        server(&self.namespace("c"), self.folder, number, address, Some(SERVER))
    }

    fn director(&self, (side, priority): (&str, u8)) -> Result<Balancer, Error> {
        let vrrp = self.world.map(|_| Vrrp { address: VIRTUAL, priority });
        let scheduler = self.product.round_robin();
        let spec = BalancerSpec { listen: self.service, servers: &self.servers, scheduler, vrrp };
        Balancer::start(self.product, &self.namespace(side), (self.folder, side), &spec)
    }

    /// Waits until clients are served through the director in a namespace.
    fn settle(&self, side: &str) -> Result<(), Error> {
        if let Some(world) = self.world {
            let other_side = if side == "a" { "b" } else { "a" };
            wait_until("the director has the virtual address", || world.has(side, VIRTUAL))?;
            wait_until("the other director does not have the virtual address", || {
                !world.has(other_side, VIRTUAL)
            })?;
            wait_until("clients are served", || world.ask(80).is_ok())?;
            let mac = world.mac(side);
            wait_until("clients have the MAC address of the director", || {
                world.neighbour(VIRTUAL).contains(&mac)
            })?;
        }
        // Late announcements and first checks are over after this pause.
        pause(Duration::from_millis(500))
    }

    /// Removes the virtual address from both directors.
    fn clear(&self) -> Result<(), Error> {
        let Some(world) = self.world else { return Ok(()) };
        for (side, _) in PRIORITIES {
            wait_until("the virtual address is removed", || {
                let address = format!("{VIRTUAL}/24");
                let _ = world.try_on(side, &["addr", "del", &address, "dev", "eth0"]);
                !world.has(side, VIRTUAL)
            })?;
        }
        Ok(())
    }
}

/// Runs one failure: starts all processes, lets one fail, and ends them.
fn fail(
    world: Option<&World>,
    folder: &Path,
    product: Product,
    fault: Fault,
) -> Result<FaultResult, Error> {
    let site = Site::new(world, folder, product)?;
    let mut servers =
        (1..=SERVERS).map(|number| site.server(number)).collect::<Result<Vec<_>, _>>()?;
    let [first, second] = PRIORITIES;
    let is_restart = fault == Fault::DirectorRestarted;
    let standby = world.is_some().then(|| site.director(second)).transpose()?;
    let mut active = (!is_restart).then(|| site.director(first)).transpose()?;
    site.settle(if is_restart { second.0 } else { first.0 })?;

    let output = folder.join("asked.csv");
    let args = load_args(site.service, RATE, BEFORE + AFTER, &output, world.is_none());
    let mut clients = Process::start_role(&site.namespace("c"), (folder, "load"), &args)?;
    let cpu = |balancer: &Option<Balancer>| {
        balancer.as_ref().map_or(Duration::ZERO, |balancer| balancer.proxy().cpu())
    };
    let (started_at, before) = (clock::now(), [cpu(&active), cpu(&standby)]);
    pause(BEFORE)?;
    let at = clock::now();
    let share = |now: Duration, before: Duration| {
        (now.saturating_sub(before)).as_secs_f64() / (clock::now() - started_at).as_secs_f64()
    };
    let active_cpu = share(cpu(&active), before[0]);
    let signal_active =
        |signal| active.as_ref().map_or(Ok(()), |active: &Balancer| active.signal(signal));
    match fault {
        Fault::ServerKilled | Fault::ServerRestarted => servers[0].signal(Signal::KILL)?,
        Fault::ServerStopped => servers[0].signal(Signal::STOP)?,
        Fault::DirectorKilled => signal_active(Signal::KILL)?,
        Fault::DirectorStopped => signal_active(Signal::STOP)?,
        Fault::DirectorShutDown => signal_active(Signal::TERM)?,
        Fault::DirectorLinkDown => world.into_iter().for_each(|world| world.link(first.0, false)),
        Fault::DirectorRestarted => active = Some(site.director(first)?),
        Fault::ServerAndDirectorKilled => {
            servers[0].signal(Signal::KILL)?;
            signal_active(Signal::KILL)?;
        }
    }
    if fault == Fault::ServerRestarted {
        pause(RESTART_AFTER)?;
        servers[0] = site.server(1)?;
    }
    clients.wait()?;
    let cpu = [active_cpu, share(cpu(&standby), before[1])];
    if fault == Fault::DirectorLinkDown {
        world.into_iter().for_each(|world| world.link(first.0, true));
    }
    for director in [active, standby].into_iter().flatten() {
        director.end()?;
    }
    site.clear()?;
    let requests = read(&output)?;
    let stats = RequestStats::new(&requests, BEFORE + AFTER);
    Ok(FaultResult { product, fault, requests, at, stats, cpu })
}
