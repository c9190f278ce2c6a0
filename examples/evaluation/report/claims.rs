//! What the evaluation is to show, and whether it does.

use std::time::Duration;

use super::Results;
use crate::balancer::Whose;
use crate::ceiling;
use crate::measure::Step;
use crate::performance::knee;
use crate::plan::SERVER;
use crate::redundancy::Outcome;

/// Something that can be so or not.
pub(crate) struct Claim {
    pub(crate) text: String,
    pub(crate) holds: bool,
}

pub(crate) fn claims(results: &Results) -> Vec<Claim> {
    let mut claims = Vec::new();
    throughput(results, &mut claims);
    loss_and_time(results, &mut claims);
    limits(results, &mut claims);
    let ours = results.redundancy.outcomes.iter().filter(|it| it.whose == Whose::Ours);
    claims.extend(ours.map(redundancy));
    claims
}

/// The most that clusters answer, beside theory.
fn throughput(results: &Results, claims: &mut Vec<Claim>) {
    for (whose, servers) in results.plan.clusters() {
        let Some(knee) = knee(&results.performance, whose, servers) else { continue };
        let theory = SERVER.capacity() * f64::from(servers);
        let off = knee / theory - 1.0;
        let who = match whose {
            None => "one server alone".to_owned(),
            Some(whose) => format!("{servers} servers behind {}", whose.name()),
        };
        claims.push(Claim {
            text: format!(
                "{who}: the knee is at {knee:.0} answers a second; theory says {theory:.0} \
                 ({:+.1} %)",
                100.0 * off
            ),
            holds: off.abs() <= 0.1,
        });
    }
}

/// A load that is too much for one server and not for four.
fn loss_and_time(results: &Results, claims: &mut Vec<Claim>) {
    let find = |whose, servers| {
        results.performance.iter().filter(move |it| (it.whose, it.servers) == (whose, servers))
    };
    let is_right = |load: f64| (1.5..=3.0).contains(&(load / SERVER.capacity()));
    let Some(alone) = find(None, 1).find(|it| is_right(it.offered)) else { return };
    let same = |it: &&Step| it.offered == alone.offered;
    let Some(four) = find(Some(Whose::Ours), 4).find(same) else { return };
    let [one, many] = [alone, four].map(|it| (&it.seen, &it.cpu));
    let offered = alone.offered;
    claims.push(Claim {
        text: format!(
            "at {offered:.0} requests a second one server loses {:.1} %, four lose {:.1} %",
            100.0 * one.0.loss,
            100.0 * many.0.loss
        ),
        holds: many.0.loss < one.0.loss,
    });
    claims.push(Claim {
        text: format!(
            "half of the answers take {:.0} ms at the most instead of {:.0}, and 99 % take {:.0} \
             instead of {:.0}",
            many.0.p50_ms, one.0.p50_ms, many.0.p99_ms, one.0.p99_ms
        ),
        holds: many.0.p99_ms < one.0.p99_ms,
    });
    claims.push(Claim {
        text: format!(
            "the work spreads: {:.1} % of a processor for each of four servers, {:.1} % for one \
             alone; the director takes {:.1} %",
            100.0 * many.1.server,
            100.0 * one.1.server,
            100.0 * many.1.director
        ),
        holds: many.1.server < one.1.server,
    });
}

/// What ends the growth, in a cluster and without the servers' work.
fn limits(results: &Results, claims: &mut Vec<Claim>) {
    for (whose, rates) in results.plan.ceilings().map(|whose| (whose, &results.ceiling)) {
        let name = whose.map_or("a server alone", Whose::name);
        let held = ceiling::held(rates, whose).map_or(0.0, |rate| rate.offered);
        let limit = match ceiling::too_much(rates, whose) {
            Some(rate) => format!("at {:.0} the limit is {}", rate.offered, ceiling::limit(rate)),
            None => "more was not tried".to_owned(),
        };
        claims.push(Claim {
            text: format!("{name}, servers without work: {held:.0} requests a second; {limit}"),
            holds: held > 0.0,
        });
    }
}

fn redundancy(outcome: &Outcome) -> Claim {
    let millis = |time: Duration| time.as_millis();
    let lost = outcome.lost_count();
    let promise = millis(outcome.fault.promise());
    let text = match lost {
        0 => "no client noticed".to_owned(),
        _ => format!(
            "{lost} of {} requests lost, sent within {} ms (promised: {promise})",
            outcome.seen.asked,
            millis(outcome.time()),
        ),
    };
    Claim { text: format!("{}: {text}", outcome.fault.name()), holds: outcome.is_kept() }
}
