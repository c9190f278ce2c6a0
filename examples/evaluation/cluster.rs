//! Real servers, a balancer in front of them, and clients.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::balancer::Balancer;
use crate::balancer_spec::{BalancerSpec, Product, Real};
use crate::clock;
use crate::measure::{Busiest, Cpu, RequestStats, Step, read};
use crate::network::Machine;
use crate::plan::{CLIENT_TIMEOUT, WORK};
use crate::process::{
    Error, Namespace, Process, idle, pause, processors, softirq_threads, wait_until,
};
use crate::testbed::Testbed;
use crate::theory::Queue;

/// Real servers, and the balancer in front of them.
pub(crate) struct Cluster {
    servers: Vec<Process>,
    balancer: Option<Balancer>,
    address: SocketAddr,
    folder: PathBuf,
    /// Removed after the processes.
    testbed: Testbed,
}

/// A real server; without a queue the server answers at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerSpec {
    pub(crate) queue: Option<Queue>,
    pub(crate) weight: u32,
    /// The connection limit.
    pub(crate) max_connections: Option<u32>,
}

impl Cluster {
    /// Starts servers and, unless `balancer` is `None`, a balancer with a scheduler.
    pub(crate) fn start(
        is_in_namespaces: bool,
        folder: &Path,
        server_specs: &[ServerSpec],
        balancer: Option<(Product, &str)>,
    ) -> Result<Self, Error> {
        let product = balancer.map(|(product, _)| product);
        let testbed = Testbed::build(is_in_namespaces, product)?;
        if let Some(network) = testbed.network() {
            network.add_addresses()?;
            if product.is_none() {
                network.route()?;
            }
        }
        let namespace = testbed.namespace(Machine::Servers);
        let (mut servers, mut real_servers) = (Vec::new(), Vec::new());
        for (server_spec, number) in server_specs.iter().zip(1u8..) {
            let address = testbed.server_address(number)?;
            servers.push(server(&namespace, folder, number, address, server_spec.queue)?);
            real_servers.push(Real {
                address,
                weight: server_spec.weight,
                max_connections: server_spec.max_connections,
            });
        }
        for real in &real_servers {
            wait_until("a server answers", || {
                testbed.get(Machine::Servers, real.address, "/health").is_some()
            })?;
        }
        let mut service_address = real_servers[0].address;
        let mut running = None;
        if let Some((product, scheduler)) = balancer {
            service_address = testbed.service_address()?;
            let machine = Machine::FirstDirector;
            let spec = BalancerSpec {
                listen: service_address,
                servers: &real_servers,
                scheduler,
                pair: None,
                pin_folder: testbed.pin_folder(machine),
            };
            let namespace = testbed.namespace(machine);
            let started = Balancer::start(product, &namespace, (folder, "balancer"), &spec)?;
            wait_until("the balancer answers", || testbed.answers(service_address))
                .map_err(|error| format!("{error}: {}", started.proxy().log_text()))?;
            running = Some(started);
        }
        let folder = folder.to_owned();
        Ok(Self { servers, balancer: running, address: service_address, folder, testbed })
    }

    /// Loads the cluster with `rate` requests a second, and measures for `time` after `warm_up`.
    pub(crate) fn load(
        &self,
        rate: f64,
        (warm_up, time): (Duration, Duration),
    ) -> Result<Step, Error> {
        let output = self.folder.join("asked.csv");
        let load_time = warm_up + time + Duration::from_millis(50);
        let started_at = clock::now();
        let [a, b] = self.testbed.many_clients();
        let many_clients = Some(Ipv4Addr::new(a, b, 0, 0));
        let args = load_args(self.address, rate, load_time, &output, many_clients);
        let namespace = self.testbed.namespace(Machine::Clients);
        let mut clients = Process::start_role(&namespace, (&self.folder, "load"), &args)?;
        pause((started_at + warm_up).saturating_sub(clock::now()))?;
        let before = self.clocks(&clients)?;
        pause(time)?;
        let after = self.clocks(&clients)?;
        clients.wait()?;
        let mut requests = read(&output)?;
        requests.retain(|request| (before.at..before.at + time).contains(&request.at()));
        let product = self.balancer.as_ref().map(Balancer::product);
        let servers = self.servers.len() as u32;
        let stats = RequestStats::new(&requests, time);
        Ok(Step { product, servers, offered: rate, stats, cpu: after.since(&before)? })
    }

    fn clocks(&self, clients: &Process) -> Result<Clocks, Error> {
        let balancer = self.balancer.iter().map(Balancer::proxy).collect::<Vec<_>>();
        let servers = self.servers.iter().collect::<Vec<_>>();
        let processes = [balancer, servers, vec![clients]];
        let at = clock::now();
        Ok(Clocks {
            at,
            idle: idle()?,
            softirq_threads: softirq_threads()?,
            processes: processes
                .each_ref()
                .map(|group| group.iter().map(|process| process.cpu()).collect()),
            threads: processes
                .map(|group| group.iter().flat_map(|process| process.threads()).collect()),
        })
    }
}

/// The CPU times at a moment: of the balancer, of the servers and of the clients.
struct Clocks {
    at: Duration,
    idle: Duration,
    softirq_threads: Duration,
    processes: [Vec<Duration>; 3],
    threads: [BTreeMap<i32, Duration>; 3],
}

impl Clocks {
    fn since(&self, before: &Self) -> Result<Cpu, Error> {
        let share = |now: Duration, then: Duration| {
            now.saturating_sub(then).as_secs_f64() / (self.at - before.at).as_secs_f64()
        };
        let [director, servers, clients] = [0, 1, 2].map(|group| {
            let [now, then] = [self, before].map(|clocks| &clocks.processes[group]);
            share(now.iter().sum(), then.iter().sum())
        });
        let cluster =
            director + servers + clients + share(self.softirq_threads, before.softirq_threads);
        let server = servers / self.processes[1].len().max(1) as f64;
        let busiest = [0, 1, 2].map(|group| {
            let then = |thread| before.threads[group].get(thread).copied().unwrap_or_default();
            let threads = self.threads[group].iter().map(|(thread, now)| share(*now, then(thread)));
            threads.fold(0.0, f64::max)
        });
        let busiest = Busiest { director: busiest[0], server: busiest[1], clients: busiest[2] };
        let processors = processors()?;
        let machine = (1.0 - share(self.idle, before.idle) / processors).max(0.0);
        let others = (machine - cluster / processors).max(0.0);
        Ok(Cpu { director, server, clients, cluster, machine, others, busiest })
    }
}

/// Starts the process of a real server.
pub(crate) fn server(
    namespace: &Namespace,
    folder: &Path,
    number: u8,
    address: SocketAddr,
    queue: Option<Queue>,
) -> Result<Process, Error> {
    let micros = |time: Duration| time.as_micros().to_string();
    let no_queue = Queue { workers: 0, backlog: 0, service: Duration::ZERO };
    let queue = queue.unwrap_or(no_queue);
    let args = [
        "server".to_owned(),
        format!("--listen={address}"),
        format!("--number={number}"),
        format!("--workers={}", queue.workers),
        format!("--backlog={}", queue.backlog),
        format!("--service-us={}", micros(queue.service)),
        format!("--cpu-us={}", micros(WORK)),
    ];
    Process::start_role(namespace, (folder, &format!("server{number}")), &args)
}

/// Returns the arguments of the client process.
pub(crate) fn load_args(
    to: SocketAddr,
    rate: f64,
    time: Duration,
    output: &Path,
    many_clients: Option<Ipv4Addr>,
) -> Vec<String> {
    let mut args = vec![
        "load".to_owned(),
        format!("--to={to}"),
        format!("--rate={rate}"),
        format!("--seconds={}", time.as_secs_f64()),
        format!("--client-timeout-ms={}", CLIENT_TIMEOUT.as_millis()),
        format!("--output={}", output.display()),
    ];
    args.extend(many_clients.map(|network| format!("--many-clients={network}")));
    args
}
