//! The steps of a run, and their durations.

use std::time::Duration;

use crate::balancer::Product;
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
    pub(crate) clusters: &'static [(Option<Product>, u32)],
    /// The measured time of each scheduler, and whether all schedulers are measured.
    pub(crate) scheduler_step: Duration,
    pub(crate) all_schedulers: bool,
    /// Requests a second to servers that answer at once.
    pub(crate) rates: &'static [f64],
    /// The failures, and the products that they are run with.
    pub(crate) faults: &'static [Fault],
    pub(crate) pairs: &'static [Product],
}

/// One real server: a capacity of 400 requests a second, and 110 ms of response time with a full queue.
pub(crate) const SERVER: Queue =
    Queue { workers: 4, backlog: 40, service: Duration::from_millis(10) };
/// The processor time in a request's service time.
pub(crate) const WORK: Duration = Duration::from_micros(250);
/// How long clients wait for an answer.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

const LVS: Option<Product> = Some(Product::Lvs);
const HAPROXY: Option<Product> = Some(Product::Haproxy);

impl Plan {
    pub(crate) fn full() -> Self {
        Self {
            name: "full",
            step: Duration::from_millis(2500),
            warm_up: Duration::from_millis(300),
            loads: &[0.4, 0.8, 1.0, 1.3, 1.7, 2.0, 2.4, 3.0, 3.5, 4.0, 4.6, 5.2],
            clusters: &[
                (None, 1),
                (LVS, 2),
                (LVS, 3),
                (LVS, 4),
                (HAPROXY, 2),
                (HAPROXY, 3),
                (HAPROXY, 4),
            ],
            scheduler_step: Duration::from_millis(2000),
            all_schedulers: true,
            rates: &[4e3, 8e3, 12e3, 16e3, 20e3, 25e3, 32e3, 40e3],
            faults: &Fault::ALL,
            pairs: &[Product::Lvs, Product::Haproxy],
        }
    }

    /// Creates the plan of a run of about a minute.
    pub(crate) fn quick() -> Self {
        Self {
            name: "quick",
            step: Duration::from_millis(700),
            warm_up: Duration::from_millis(200),
            loads: &[0.5, 1.0, 2.0, 3.0, 4.0, 5.0],
            clusters: &[(None, 1), (LVS, 2), (LVS, 4), (HAPROXY, 4)],
            scheduler_step: Duration::from_millis(500),
            all_schedulers: false,
            rates: &[1e3, 4e3],
            faults: &[Fault::ServerKilled, Fault::DirectorKilled, Fault::DirectorShutDown],
            pairs: &[Product::Lvs],
        }
    }

    /// Returns the clusters whose programs are installed.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = (Option<Product>, u32)> {
        let is_installed = |(product, _): &(Option<Product>, u32)| {
            product.is_none_or(|product| product.is_installed(false))
        };
        self.clusters.iter().copied().filter(is_installed)
    }

    /// Returns the schedulers of the products whose programs are installed.
    pub(crate) fn schedulers(&self) -> Vec<(Product, String)> {
        let quick = ["wrr", "wlc", "p2c", "maglev"];
        let registry = lvs::scheduler::SchedulerRegistry::default();
        // Without those that need an inner scheduler.
        let names = registry.names().filter(|name| lvs::scheduler::parse(name).is_ok());
        let lvs = names.chain(["bounded(maglev)"]).map(|name| (Product::Lvs, name.to_owned()));
        let haproxy = ["roundrobin", "static-rr", "leastconn", "random(2)", "first", "source"];
        let haproxy = haproxy.map(|name| (Product::Haproxy, name.to_owned()));
        let is_selected = |(product, name): &(Product, String)| {
            product.is_installed(false) && (self.all_schedulers || quick.contains(&&**name))
        };
        lvs.chain(haproxy).filter(is_selected).collect()
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = Product> {
        self.pairs.iter().copied().filter(|product| product.is_installed(true))
    }

    /// Returns the number of steps.
    pub(crate) fn steps(&self) -> u64 {
        let loads = self.clusters().count() * self.loads.len();
        let rates = self.ceilings().count() * self.rates.len();
        (loads + self.schedulers().len() + rates + self.pairs().count() * self.faults.len()) as u64
    }

    /// Returns the balancers of the ceiling part; `None` is a server without balancer.
    pub(crate) fn ceilings(&self) -> impl Iterator<Item = Option<Product>> {
        [None, LVS, HAPROXY]
            .into_iter()
            .filter(|product| product.is_none_or(|product| product.is_installed(false)))
    }
}
