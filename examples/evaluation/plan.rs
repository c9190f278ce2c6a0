//! The steps of a run, and their durations.

use std::time::Duration;

use crate::balancer_spec::Product;
use crate::fault::Fault;
use crate::theory::Queue;

/// A run of the evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The name of the plan.
    pub(crate) name: &'static str,
    /// The measured time of each step, and the time before it.
    pub(crate) step: Duration,
    pub(crate) warm_up: Duration,
    /// Requests a second, in multiples of the capacity of one server.
    pub(crate) loads: &'static [f64],
    /// The balancers, each with its number of servers; `None` is a server without balancer.
    pub(crate) clusters: Vec<(Option<Product>, u32)>,
    /// The schedulers of unequal servers, and the measured time of each.
    pub(crate) schedulers: Vec<(Product, String)>,
    pub(crate) scheduler_step: Duration,
    /// The balancers of the ceiling part; `None` is a server without balancer.
    pub(crate) ceilings: Vec<Option<Product>>,
    /// Requests a second to servers that answer at once.
    pub(crate) rates: &'static [f64],
    /// The failures, and the products that they are run with.
    pub(crate) faults: &'static [Fault],
    pub(crate) pairs: Vec<Product>,
    /// Whether the processes run in network namespaces, and not on loopback.
    pub(crate) is_in_namespaces: bool,
    /// What is left out on this machine, each with the reason.
    pub(crate) left_out: Vec<String>,
}

/// One real server: a capacity of 400 requests a second, and 110 ms of response time with a full queue.
pub(crate) const SERVER: Queue =
    Queue { workers: 4, backlog: 40, service: Duration::from_millis(10) };
/// The processor time in a request's service time.
pub(crate) const WORK: Duration = Duration::from_micros(250);
/// How long clients wait for an answer.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

const PROXY: Option<Product> = Some(Product::LvsProxy);
const PACKET: Option<Product> = Some(Product::LvsPacket);
const HAPROXY: Option<Product> = Some(Product::Haproxy);

impl Plan {
    pub(crate) fn full() -> Self {
        let products = [PROXY, PACKET, HAPROXY];
        let balanced = products.into_iter().flat_map(|product| [2, 3, 4].map(|n| (product, n)));
        Self {
            name: "full",
            step: Duration::from_millis(2500),
            warm_up: Duration::from_millis(300),
            loads: &[0.4, 0.8, 1.0, 1.3, 1.7, 2.0, 2.4, 3.0, 3.5, 4.0, 4.6, 5.2],
            clusters: [(None, 1)].into_iter().chain(balanced).collect(),
            schedulers: Self::schedulers(),
            scheduler_step: Duration::from_millis(2000),
            ceilings: vec![None, PROXY, PACKET, HAPROXY],
            rates: &[2e3, 4e3, 6e3, 8e3, 10e3, 12e3, 16e3, 20e3],
            faults: &Fault::ALL,
            pairs: Product::ALL.to_vec(),
            is_in_namespaces: true,
            left_out: Vec::new(),
        }
    }

    /// Creates the plan of a run of about a minute.
    pub(crate) fn quick() -> Self {
        let is_selected = |scheduler: &str| ["wrr", "wlc", "maglev"].contains(&scheduler);
        Self {
            name: "quick",
            step: Duration::from_millis(600),
            // In which the servers' backlogs fill at the highest load.
            warm_up: Duration::from_millis(400),
            loads: &[1.0, 2.0, 3.0, 4.0, 5.0],
            clusters: vec![(None, 1), (PROXY, 2), (PROXY, 4), (PACKET, 4), (HAPROXY, 4)],
            schedulers: Self::schedulers()
                .into_iter()
                .filter(|(_, name)| is_selected(name))
                .collect(),
            scheduler_step: Duration::from_millis(500),
            ceilings: vec![None, PROXY, PACKET, HAPROXY],
            rates: &[500.0, 1e3],
            faults: &[Fault::ServerKilled, Fault::DirectorKilled],
            pairs: vec![Product::LvsProxy, Product::LvsPacket],
            is_in_namespaces: true,
            left_out: Vec::new(),
        }
    }

    /// Leaves out the products that this machine does not have, alone or as a pair.
    pub(crate) fn keep(&mut self, has: impl Fn(Product, bool) -> bool) {
        let has_alone =
            |product: &Option<Product>| product.is_none_or(|product| has(product, false));
        self.clusters.retain(|(product, _)| has_alone(product));
        self.ceilings.retain(has_alone);
        self.schedulers.retain(|(product, _)| has(*product, false));
        self.pairs.retain(|product| has(*product, true));
    }

    /// Returns all schedulers: those of the proxy engine, which the packet engine asks too, and HAProxy's.
    fn schedulers() -> Vec<(Product, String)> {
        let registry = lvs::scheduler::SchedulerRegistry::default();
        // Without those that need an inner scheduler.
        let names = registry.names().filter(|name| lvs::scheduler::parse(name).is_ok());
        let lvs = names.chain(["bounded(maglev)"]).map(|name| (Product::LvsProxy, name.to_owned()));
        let haproxy = ["roundrobin", "static-rr", "leastconn", "random(2)", "first", "source"];
        lvs.chain(haproxy.map(|name| (Product::Haproxy, name.to_owned()))).collect()
    }

    /// Returns the number of steps.
    pub(crate) fn steps(&self) -> u64 {
        let loads = self.clusters.len() * self.loads.len();
        let rates = self.ceilings.len() * self.rates.len();
        (loads + self.schedulers.len() + rates + self.pairs.len() * self.faults.len()) as u64
    }
}
