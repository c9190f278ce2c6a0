//! The charts of the report.

use plotters::prelude::SeriesLabelPosition;

use super::Results;
use super::chart::{Axes, COLOURS, Series, lines};
use crate::balancer::Whose;
use crate::measure::{Asked, Step};
use crate::plan::SERVER;
use crate::process::Error;
use crate::redundancy::{Fault, Outcome};

/// What a chart shows of a step.
type Value = fn(&Step) -> f64;

/// All clusters, with what theory says where it says something.
fn over_load(
    results: &Results,
    (name, max, is_log): (&str, f64, bool),
    value: Value,
    theory: Option<fn(u32, f64) -> f64>,
) -> Result<String, Error> {
    let loads: Vec<_> = results.plan.loads.iter().map(|load| load * SERVER.capacity()).collect();
    let most = loads.last().copied().unwrap_or(1.0);
    let mut series = Vec::new();
    let largest = results.plan.clusters().map(|(_, servers)| servers).max().unwrap_or(1);
    if let Some(theory) = theory {
        for servers in [1, largest] {
            let steps = (1..=80).map(|step| most * f64::from(step) / 80.0);
            let points = steps.map(|load| (load, theory(servers, load))).collect();
            let name = format!("theory: {servers}, one line");
            series.push(Series { name, colour: COLOURS[5], is_dashed: true, points });
        }
    }
    for (whose, servers) in results.plan.clusters() {
        // The same colour for as many servers; the other balancer's is dashed.
        let colour = COLOURS[servers as usize - 1];
        let of = results.performance.iter().filter(|it| (it.whose, it.servers) == (whose, servers));
        let points = of.map(|it| (it.offered, value(it))).filter(|it| it.1.is_finite()).collect();
        let name = match whose {
            None => "one server alone".to_owned(),
            Some(whose) => format!("{servers} behind {}", whose.name()),
        };
        let is_dashed = whose == Some(Whose::Theirs);
        series.push(Series { name, colour, is_dashed, points });
    }
    let least = if is_log { 1.0 } else { 0.0 };
    let legend = SeriesLabelPosition::UpperLeft;
    let axes = Axes { x: ("requests a second", 0.0, most), y: (name, least, max), is_log, legend };
    lines(&axes, &series)
}

pub(crate) fn throughput(results: &Results) -> Result<String, Error> {
    let most = results.performance.iter().map(|it| it.seen.answered).fold(1.0, f64::max);
    let theory = |servers, load| SERVER.pooled(servers).at(load).throughput;
    let axis = ("answers a second", most * 1.15, false);
    over_load(results, axis, |it| it.seen.answered, Some(theory))
}

pub(crate) fn loss(results: &Results) -> Result<String, Error> {
    let theory = |servers, load| 100.0 * SERVER.pooled(servers).at(load).loss;
    over_load(results, ("lost, in percent", 100.0, false), |it| 100.0 * it.seen.loss, Some(theory))
}

pub(crate) fn response(results: &Results) -> Result<String, Error> {
    let theory = |servers, load| 1000.0 * SERVER.pooled(servers).at(load).response;
    let axis = ("response time, mean, in ms", 10_000.0, true);
    over_load(results, axis, |it| it.seen.mean_ms, Some(theory))
}

pub(crate) fn tail(results: &Results) -> Result<String, Error> {
    let axis = ("response time, 99th percentile, in ms", 10_000.0, true);
    over_load(results, axis, |it| it.seen.p99_ms, None)
}

pub(crate) fn cpu(results: &Results, of_servers: bool) -> Result<String, Error> {
    let value: Value = match of_servers {
        true => |it| 100.0 * it.cpu.server,
        false => |it| 100.0 * it.cpu.director,
    };
    let most = results.performance.iter().map(value).fold(1.0, f64::max);
    let name = match of_servers {
        true => "each server, in percent of a processor",
        false => "the director, in percent of a processor",
    };
    over_load(results, (name, most * 1.15, false), value, None)
}

/// What is shown of the requests of a moment.
type Moment = fn(&[&Asked]) -> f64;

/// The part of the requests around a failure that were answered.
pub(crate) fn answered(outcomes: &[Outcome], fault: Fault) -> Result<String, Error> {
    let part: Moment = |asked| {
        let answered = asked.iter().filter(|it| !it.is_lost()).count();
        100.0 * answered as f64 / asked.len() as f64
    };
    time_line(outcomes, fault, ("answered, in percent", 0.0, 105.0, false), part)
}

/// The longest response times around a failure; who gave up waited as long as that.
pub(crate) fn longest(outcomes: &[Outcome], fault: Fault) -> Result<String, Error> {
    let longest: Moment =
        |asked| asked.iter().map(|it| it.took_us as f64 / 1e3).fold(1.0, f64::max);
    time_line(outcomes, fault, ("longest response time, in ms", 1.0, 10_000.0, true), longest)
}

/// Steps of a twentieth of a second, by when requests were to be sent.
fn time_line(
    outcomes: &[Outcome],
    fault: Fault,
    (name, least, most, is_log): (&str, f64, f64, bool),
    moment: Moment,
) -> Result<String, Error> {
    const BIN: f64 = 0.05;
    const FROM: f64 = -0.5;
    const TO: f64 = 2.0;
    let mut series = Vec::new();
    for outcome in outcomes.iter().filter(|it| it.fault == fault) {
        let mut bins = vec![Vec::new(); ((TO - FROM) / BIN).round() as usize];
        for asked in &outcome.asked {
            let bin = (asked.at().as_secs_f64() - outcome.at.as_secs_f64() - FROM) / BIN;
            if bin >= 0.0
                && let Some(bin) = bins.get_mut(bin as usize)
            {
                bin.push(asked);
            }
        }
        let some = bins.iter().enumerate().filter(|(_, asked)| !asked.is_empty());
        let steps = some.flat_map(|(bin, asked)| {
            let (from, value) = (FROM + bin as f64 * BIN, moment(asked));
            [(from, value), (from + BIN, value)]
        });
        let (name, colour) = match outcome.whose {
            Whose::Ours => ("lvs", COLOURS[3]),
            Whose::Theirs => ("keepalived and HAProxy", COLOURS[0]),
        };
        let points = steps.collect();
        series.push(Series { name: name.to_owned(), colour, is_dashed: false, points });
    }
    let mark = |at: f64, name: &str, colour| Series {
        name: name.to_owned(),
        colour,
        is_dashed: true,
        points: vec![(at, least), (at, most)],
    };
    series.push(mark(0.0, "it happens", COLOURS[5]));
    series.push(mark(fault.promise().as_secs_f64(), "the promise", COLOURS[2]));
    let (x, y) = (("seconds since it happened", FROM, TO), (name, least, most));
    let axes = Axes { x, y, is_log, legend: SeriesLabelPosition::LowerRight };
    lines(&axes, &series)
}
