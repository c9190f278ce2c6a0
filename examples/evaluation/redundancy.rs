//! The requests and the downloads that a failure loses, under a constant load.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use rustix::process::Signal;

use crate::balancer::Balancer;
use crate::balancer_spec::{ADMIN, BalancerSpec, PairMember, Product, Real};
use crate::clock;
use crate::cluster::{load_args, server};
use crate::downloads::{self, DownloadArgs, DownloadStats};
use crate::fault::{Fault, PRIORITIES};
use crate::measure::{RequestRecord, RequestStats, read};
use crate::network::{GATEWAY, Machine, VIRTUAL};
use crate::plan::{Plan, SERVER};
use crate::process::{Error, Process, pause, wait_until};
use crate::testbed::Testbed;

/// Requests a second: the capacity of one of the four servers.
pub(crate) const RATE: f64 = 400.0;
const SERVERS: u8 = 4;
/// The measured time before the failure and after it.
const BEFORE: Duration = Duration::from_secs(1);
pub(crate) const AFTER: Duration = Duration::from_secs(3);
/// The time of the downloads before the first request.
const DOWNLOADS_AHEAD: Duration = Duration::from_millis(700);
/// How long the downloads are under way when something fails.
pub(crate) const BEGUN_BEFORE: Duration = DOWNLOADS_AHEAD.saturating_add(BEFORE);
/// The number of the server that fails.
const FAILED_SERVER: u8 = 1;
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
    /// CPU utilization of the active director's process before the failure, and of the standby's over
    /// the whole run.
    pub(crate) cpu: [f64; 2],
    pub(crate) downloads: DownloadStats,
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

/// Measures the failures.
pub(crate) fn run(
    plan: &Plan,
    folder: &Path,
    bar: &ProgressBar,
) -> Result<Vec<FaultResult>, Error> {
    let mut outcomes = Vec::new();
    for &fault in plan.faults {
        for &product in &plan.pairs {
            bar.set_message(format!("{}: {}", product.name(), fault.name()));
            if plan.is_in_namespaces || fault.is_of_server() {
                let testbed = Testbed::build(plan.is_in_namespaces, Some(product))?;
                outcomes.push(fail(&Site::new(testbed, folder, product)?, fault)?);
            }
            bar.inc(1);
        }
    }
    Ok(outcomes)
}

/// The addresses and namespaces of a failure.
struct Site<'a> {
    testbed: Testbed,
    folder: &'a Path,
    product: Product,
    servers: Vec<Real>,
    service: SocketAddr,
}

impl<'a> Site<'a> {
    fn new(testbed: Testbed, folder: &'a Path, product: Product) -> Result<Self, Error> {
        let real = |number| {
            let address = testbed.server_address(number)?;
            Ok(Real { address, weight: 1, max_connections: None })
        };
        let servers = (1..=SERVERS).map(real).collect::<Result<_, Error>>()?;
        let service = testbed.service_address()?;
        Ok(Self { testbed, folder, product, servers, service })
    }

    fn server(&self, number: u8) -> Result<Process, Error> {
        let address = self.servers[usize::from(number) - 1].address;
        let namespace = self.testbed.namespace(Machine::Servers);
        server(&namespace, self.folder, number, address, Some(SERVER))
    }

    /// Starts one of the two directors; the other one is its peer.
    fn director(&self, number: usize) -> Result<Balancer, Error> {
        let ((machine, priority), (peer, _)) = (PRIORITIES[number], PRIORITIES[1 - number]);
        let spec = BalancerSpec {
            listen: self.service,
            servers: &self.servers,
            scheduler: self.product.round_robin(),
            pair: self.testbed.network().map(|_| PairMember { machine, peer, priority }),
            pin_folder: self.testbed.pin_folder(machine),
        };
        let namespace = self.testbed.namespace(machine);
        Balancer::start(self.product, &namespace, (self.folder, machine.name()), &spec)
    }

    /// Waits until clients are served through a director, and the other one, if it runs, is its standby.
    fn settle(&self, active: Machine, standby: Option<Machine>) -> Result<(), Error> {
        if let Some(network) = self.testbed.network() {
            let is_packet = self.product == Product::LvsPacket;
            wait_until("the director has the virtual addresses", || {
                network.has(active, VIRTUAL) && (!is_packet || network.has(active, GATEWAY))
            })?;
            if let Some(standby) = standby {
                wait_until("the other director does not have the virtual address", || {
                    !network.has(standby, VIRTUAL)
                })?;
                wait_until("the other director knows the flows", || {
                    !is_packet || self.is_in_sync(standby)
                })?;
            }
            wait_until("clients have the MAC address of the director", || {
                self.testbed.answers(self.service) && network.leads_to(active)
            })?;
        }
        wait_until("clients are served", || self.testbed.answers(self.service))?;
        // Late announcements and first checks are over after this pause.
        pause(Duration::from_millis(500))
    }

    /// Returns whether a director has the state of the active one.
    fn is_in_sync(&self, director: Machine) -> bool {
        let admin = ADMIN.parse().ok();
        let status = admin.and_then(|admin| self.testbed.get(director, admin, "/api/v1/status"));
        status.is_some_and(|status| status.contains("\"in_sync\":true"))
    }

    /// Starts the downloads and, some time later, the requests.
    fn clients(&self, outputs: [&Path; 2]) -> Result<Clients, Error> {
        let [download_output, load_output] = outputs;
        let namespace = self.testbed.namespace(Machine::Clients);
        let end = clock::now() + DOWNLOADS_AHEAD + BEFORE + AFTER;
        let args = DownloadArgs::words(self.service, end, download_output);
        let downloads = Process::start_role(&namespace, (self.folder, "downloads"), &args)?;
        pause(DOWNLOADS_AHEAD)?;
        let [a, b] = self.testbed.many_clients();
        let many_clients = self.testbed.network().is_none().then(|| Ipv4Addr::new(a, b, 0, 0));
        let args = load_args(self.service, RATE, BEFORE + AFTER, load_output, many_clients);
        let load = Process::start_role(&namespace, (self.folder, "load"), &args)?;
        Ok(Clients { downloads, load, end })
    }
}

/// The processes of the clients, and the moment at which the downloads end.
struct Clients {
    downloads: Process,
    load: Process,
    end: Duration,
}

/// Runs one failure: starts all processes, lets one fail, and ends them.
fn fail(site: &Site<'_>, fault: Fault) -> Result<FaultResult, Error> {
    let network = site.testbed.network();
    let mut servers =
        (1..=SERVERS).map(|number| site.server(number)).collect::<Result<Vec<_>, _>>()?;
    let [(first, _), (second, _)] = PRIORITIES;
    let is_restart = fault == Fault::DirectorRestarted;
    let standby = network.map(|_| site.director(1)).transpose()?;
    let mut active = (!is_restart).then(|| site.director(0)).transpose()?;
    let settled = match is_restart {
        true => site.settle(second, None),
        false => site.settle(first, network.map(|_| second)),
    };
    settled.map_err(|error| {
        let logs = [&active, &standby].into_iter().flatten().map(|it| it.proxy().log_text());
        format!("{error}: {}", logs.collect::<String>())
    })?;

    let outputs = ["downloads.csv", "asked.csv"].map(|name| site.folder.join(name));
    let mut clients = site.clients(outputs.each_ref().map(|path| &**path))?;
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
    let failed_server = usize::from(FAILED_SERVER) - 1;
    match fault {
        Fault::ServerKilled | Fault::ServerRestarted => {
            servers[failed_server].signal(Signal::KILL)?;
        }
        Fault::ServerStopped => servers[failed_server].signal(Signal::STOP)?,
        Fault::DirectorKilled => signal_active(Signal::KILL)?,
        Fault::DirectorStopped => signal_active(Signal::STOP)?,
        Fault::DirectorShutDown => signal_active(Signal::TERM)?,
        Fault::DirectorLinkDown => network.map_or(Ok(()), |network| network.cut_off(first))?,
        Fault::DirectorRestarted => active = Some(site.director(0)?),
        Fault::ServerAndDirectorKilled => {
            servers[failed_server].signal(Signal::KILL)?;
            signal_active(Signal::KILL)?;
        }
    }
    if fault == Fault::ServerRestarted {
        pause(RESTART_AFTER)?;
        servers[failed_server] = site.server(FAILED_SERVER)?;
    }
    clients.downloads.wait()?;
    clients.load.wait()?;
    let cpu = [active_cpu, share(cpu(&standby), before[1])];
    for director in [active, standby].into_iter().flatten() {
        director.end()?;
    }
    let [downloads, requests] = outputs;
    let (downloads, requests) = (downloads::read(&downloads)?, read(&requests)?);
    let failed = fault.fails_server().then_some(FAILED_SERVER);
    Ok(FaultResult {
        product: site.product,
        fault,
        at,
        stats: RequestStats::new(&requests, BEFORE + AFTER),
        requests,
        cpu,
        downloads: DownloadStats::new(&downloads, failed, (at, clients.end)),
    })
}
