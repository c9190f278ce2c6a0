//! The claims that the evaluation checks.

use std::time::Duration;

use super::results::Results;
use crate::balancer_spec::Product;
use crate::ceiling;
use crate::downloads::DownloadStats;
use crate::measure::Step;
use crate::performance::knee;
use crate::plan::SERVER;
use crate::redundancy::FaultResult;

/// A statement about the measurements, and whether it holds.
pub(crate) struct Claim {
    pub(crate) text: String,
    pub(crate) holds: bool,
}

pub(crate) fn claims(results: &Results) -> Vec<Claim> {
    let mut claims = Vec::new();
    throughput(results, &mut claims);
    loss_and_time(results, &mut claims);
    limits(results, &mut claims);
    claims.extend(cost(results));
    let ours = results.redundancy.iter().filter(|outcome| outcome.product != Product::Haproxy);
    claims.extend(ours.clone().map(redundancy));
    claims.extend(ours.filter_map(downloads));
    claims
}

/// Compares the knees of clusters with theory.
fn throughput(results: &Results, claims: &mut Vec<Claim>) {
    for (product, servers) in results.plan.clusters.iter().copied() {
        let Some(knee) = knee(&results.performance, product, servers) else { continue };
        let theory = SERVER.capacity() * f64::from(servers);
        let deviation = knee / theory - 1.0;
        let cluster = match product {
            None => "one server alone".to_owned(),
            Some(product) => format!("{servers} servers behind {}", product.name()),
        };
        claims.push(Claim {
            text: format!(
                "{cluster}: the throughput saturates at {knee:.0} answers a second; theory expects \
                 {theory:.0} ({:+.1} %)",
                100.0 * deviation
            ),
            holds: deviation.abs() <= 0.1,
        });
    }
}

/// Compares one server with four, at a load above the capacity of one and below that of four.
fn loss_and_time(results: &Results, claims: &mut Vec<Claim>) {
    let find = |product, servers| {
        results
            .performance
            .iter()
            .filter(move |step| (step.product, step.servers) == (product, servers))
    };
    let is_in_range = |load: f64| (1.5..=3.0).contains(&(load / SERVER.capacity()));
    let Some(alone) = find(None, 1).find(|step| is_in_range(step.offered)) else { return };
    let is_same_load = |step: &&Step| step.offered == alone.offered;
    let Some(four) = find(Some(Product::LvsProxy), 4).find(is_same_load) else { return };
    let [(one_seen, one_cpu), (four_seen, four_cpu)] =
        [alone, four].map(|step| (&step.stats, &step.cpu));
    let offered = alone.offered;
    claims.push(Claim {
        text: format!(
            "at {offered:.0} requests a second, one server loses {:.1} % of them and four servers \
             {:.1} %",
            100.0 * one_seen.loss,
            100.0 * four_seen.loss
        ),
        holds: four_seen.loss < one_seen.loss,
    });
    claims.push(Claim {
        text: format!(
            "at that load, the median response time of four servers is {:.0} ms (one server: {:.0}), \
             and the 99th percentile is {:.0} ms ({:.0})",
            four_seen.p50_ms, one_seen.p50_ms, four_seen.p99_ms, one_seen.p99_ms
        ),
        holds: four_seen.p99_ms < one_seen.p99_ms,
    });
    claims.push(Claim {
        text: format!(
            "at that load, each of four servers uses {:.1} % of a processor, a single server \
             {:.1} %; the director uses {:.1} %",
            100.0 * four_cpu.server,
            100.0 * one_cpu.server,
            100.0 * four_cpu.director
        ),
        holds: four_cpu.server < one_cpu.server,
    });
}

/// Returns the highest rates with servers that answer at once, and what limits them.
fn limits(results: &Results, claims: &mut Vec<Claim>) {
    for (product, rates) in
        results.plan.ceilings.iter().copied().map(|product| (product, &results.ceiling))
    {
        let name = product.map_or("one server alone", Product::name);
        let held = ceiling::held(rates, product).map_or(0.0, |rate| rate.offered);
        let limit = match ceiling::too_much(rates, product) {
            Some(rate) => format!(
                "at {:.0} requests a second the limit is {}",
                rate.offered,
                ceiling::limit(rate)
            ),
            None => "no higher rate was tried".to_owned(),
        };
        claims.push(Claim {
            text: format!(
                "{name}, with servers that answer at once: {held:.0} requests a second; {limit}"
            ),
            holds: held > 0.0,
        });
    }
}

/// Compares the CPU time of all processes at the highest rate that holds with every balancer.
fn cost(results: &Results) -> Option<Claim> {
    let ceilings = &results.plan.ceilings;
    let step = |product, rate: f64| {
        let mut steps = results.ceiling.iter().filter(|step| ceiling::holds(step));
        steps.find(|step| step.product == product && step.offered == rate)
    };
    let mut rates = results.plan.rates.iter().copied().rev();
    let rate = rates.find(|rate| ceilings.iter().all(|product| step(*product, *rate).is_some()))?;
    let cpu = |product| step(product, rate).map_or(f64::NAN, |step| step.cpu.cluster);
    let shares = ceilings.iter().map(|product| {
        let name = product.map_or("without a balancer", Product::name);
        format!("{:.0} % ({name})", 100.0 * cpu(*product))
    });
    let [packet, proxy] = [Product::LvsPacket, Product::LvsProxy].map(|product| cpu(Some(product)));
    Some(Claim {
        text: format!(
            "at {rate:.0} requests a second to servers that answer at once, balancer, servers and clients \
             together use, in percent of a processor: {}",
            shares.collect::<Vec<_>>().join(", ")
        ),
        // A tenth is within the noise of two steps.
        holds: packet.is_nan() || packet <= proxy * 1.1,
    })
}

fn redundancy(outcome: &FaultResult) -> Claim {
    let millis = |time: Duration| time.as_millis();
    let lost = outcome.lost_count();
    let bound = millis(outcome.fault.bound());
    let text = match lost {
        0 => "no request lost".to_owned(),
        _ => format!(
            "{lost} of {} requests lost, within {} ms (bound: {bound} ms)",
            outcome.stats.requests,
            millis(outcome.loss_time()),
        ),
    };
    let (product, fault) = (outcome.product.name(), outcome.fault.name());
    Claim { text: format!("{product}: {fault}: {text}"), holds: outcome.is_within_bound() }
}

/// Checks that downloads go on: with the packet engine after each failure, and with the proxy engine,
/// whose connections end with the director, after that of a server.
fn downloads(outcome: &FaultResult) -> Option<Claim> {
    let (product, fault) = (outcome.product, outcome.fault);
    if product != Product::LvsPacket && !fault.is_of_server() {
        return None;
    }
    let DownloadStats { under_way, can_survive, survived } = outcome.downloads;
    let from = match fault.fails_server() {
        true => format!("{can_survive} from the other servers, of {under_way} under way"),
        false => format!("{under_way} under way"),
    };
    Some(Claim {
        text: format!(
            "{}: {}: {survived} downloads survive of {from}",
            product.name(),
            fault.name()
        ),
        holds: can_survive > 0 && survived == can_survive,
    })
}
