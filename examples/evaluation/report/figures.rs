//! The charts of the report.

use plotters::style::RGBColor;

use super::chart::{Axes, Bar, BarGroup, COLOURS, Series, bars, lines};
use super::results::Results;
use crate::balancer_spec::Product;
use crate::fault::Fault;
use crate::measure::{RequestRecord, Step};
use crate::plan::SERVER;
use crate::process::Error;
use crate::redundancy::FaultResult;

/// The value of a step that a chart shows.
type Value = fn(&Step) -> f64;

/// Draws a value of all clusters over the load, with the values of theory if there are any.
fn over_load(
    results: &Results,
    (name, max, is_log): (&str, f64, bool),
    value: Value,
    theory: Option<fn(u32, f64) -> f64>,
) -> Result<String, Error> {
    let loads: Vec<_> = results.plan.loads.iter().map(|load| load * SERVER.capacity()).collect();
    let max_load = loads.last().copied().unwrap_or(1.0);
    let mut series = Vec::new();
    let largest =
        results.plan.clusters.iter().copied().map(|(_, servers)| servers).max().unwrap_or(1);
    if let Some(theory) = theory {
        for servers in [1, largest] {
            let steps = (1..=80).map(|step| max_load * f64::from(step) / 80.0);
            let points = steps.map(|load| (load, theory(servers, load))).collect();
            let name = format!("theory: {servers}, shared backlog");
            series.push(Series { name, colour: COLOURS[5], dashes: Some((5, 4)), points });
        }
    }
    for (product, servers) in results.plan.clusters.iter().copied() {
        // One colour for each number of servers, and one kind of line for each product.
        let colour = COLOURS[servers as usize - 1];
        let steps = results
            .performance
            .iter()
            .filter(|step| (step.product, step.servers) == (product, servers));
        let points = steps
            .map(|step| (step.offered, value(step)))
            .filter(|(_, value)| value.is_finite())
            .collect();
        let name = match product {
            None => "one server alone".to_owned(),
            Some(product) => format!("{servers} behind {}", product.name()),
        };
        let dashes = match product {
            None | Some(Product::LvsProxy) => None,
            Some(Product::LvsPacket) => Some((2, 3)),
            Some(Product::Haproxy) => Some((9, 4)),
        };
        series.push(Series { name, colour, dashes, points });
    }
    let min = if is_log { 1.0 } else { 0.0 };
    let axes = Axes { x: ("requests a second", 0.0, max_load), y: (name, min, max), is_log };
    lines(&axes, &series)
}

pub(crate) fn throughput(results: &Results) -> Result<String, Error> {
    let max = results.performance.iter().map(|step| step.stats.answered).fold(1.0, f64::max);
    let theory = |servers, load| SERVER.pooled(servers).at(load).throughput;
    let axis = ("answers a second", max * 1.15, false);
    over_load(results, axis, |step| step.stats.answered, Some(theory))
}

pub(crate) fn loss(results: &Results) -> Result<String, Error> {
    let theory = |servers, load| 100.0 * SERVER.pooled(servers).at(load).loss;
    over_load(
        results,
        ("lost requests, in percent", 100.0, false),
        |step| 100.0 * step.stats.loss,
        Some(theory),
    )
}

pub(crate) fn response(results: &Results) -> Result<String, Error> {
    let theory = |servers, load| 1000.0 * SERVER.pooled(servers).at(load).response;
    let axis = ("response time, mean, in ms", 10_000.0, true);
    over_load(results, axis, |step| step.stats.mean_ms, Some(theory))
}

pub(crate) fn tail(results: &Results) -> Result<String, Error> {
    let axis = ("response time, 99th percentile, in ms", 10_000.0, true);
    over_load(results, axis, |step| step.stats.p99_ms, None)
}

/// The processes whose CPU utilization a chart shows.
#[derive(Clone, Copy)]
pub(crate) enum Processes {
    Server,
    Balancer,
    All,
}

pub(crate) fn cpu(results: &Results, processes: Processes) -> Result<String, Error> {
    let (name, value): (_, Value) = match processes {
        Processes::Server => ("each server", |step| 100.0 * step.cpu.server),
        Processes::Balancer => ("the balancer's process", |step| 100.0 * step.cpu.director),
        Processes::All => ("all processes", |step| 100.0 * step.cpu.cluster),
    };
    let max = results.performance.iter().map(value).fold(1.0, f64::max);
    let name = format!("CPU of {name}, in percent of a processor");
    over_load(results, (&name, max * 1.15, false), value, None)
}

/// Draws the fraction of downloads that survived each failure.
pub(crate) fn downloads(outcomes: &[FaultResult]) -> Result<String, Error> {
    let is_measured =
        |product: &Product| outcomes.iter().any(|outcome| outcome.product == *product);
    let products = Product::ALL.into_iter().filter(is_measured).collect::<Vec<_>>();
    let faults = Fault::ALL.into_iter().map(|fault| {
        let bars = outcomes.iter().filter(|outcome| outcome.fault == fault).filter_map(|outcome| {
            let downloads = &outcome.downloads;
            Some(Bar {
                series: products.iter().position(|product| *product == outcome.product)?,
                percent: 100.0 * downloads.share(),
                label: format!("{} of {}", downloads.survived, downloads.can_survive),
            })
        });
        BarGroup { name: fault.short_name().to_owned(), bars: bars.collect() }
    });
    let series = products.iter().map(|product| (product.pair_name(), colour(*product)));
    let groups = faults.filter(|group| !group.bars.is_empty()).collect::<Vec<_>>();
    bars("downloads that survived, in percent", &series.collect::<Vec<_>>(), &groups)
}

/// Returns the colour of a product where there is one line or bar for each.
fn colour(product: Product) -> RGBColor {
    match product {
        Product::LvsProxy => COLOURS[3],
        Product::LvsPacket => COLOURS[2],
        Product::Haproxy => COLOURS[0],
    }
}

/// The value of the requests of a time bin that a chart shows.
type BinValue = fn(&[&RequestRecord]) -> f64;

/// Draws the fraction of requests around a failure that were answered.
pub(crate) fn answered(outcomes: &[FaultResult], fault: Fault) -> Result<String, Error> {
    let part: BinValue = |requests| {
        let answered = requests.iter().filter(|request| !request.is_lost()).count();
        100.0 * answered as f64 / requests.len() as f64
    };
    time_line(outcomes, fault, ("answered requests, in percent", 0.0, 105.0, false), part)
}

/// Draws the longest response times around a failure; a lost request counts the time until it failed.
pub(crate) fn longest(outcomes: &[FaultResult], fault: Fault) -> Result<String, Error> {
    let longest: BinValue =
        |requests| requests.iter().map(|request| request.took_us as f64 / 1e3).fold(1.0, f64::max);
    time_line(outcomes, fault, ("longest response time, in ms", 1.0, 10_000.0, true), longest)
}

/// Draws a value over time, in bins of a twentieth of a second by the due moments of requests.
fn time_line(
    outcomes: &[FaultResult],
    fault: Fault,
    (name, min, max, is_log): (&str, f64, f64, bool),
    bin_value: BinValue,
) -> Result<String, Error> {
    const BIN: f64 = 0.05;
    const FROM: f64 = -0.5;
    const TO: f64 = 2.0;
    let mut series = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.fault == fault) {
        let mut bins = vec![Vec::new(); ((TO - FROM) / BIN).round() as usize];
        for request in &outcome.requests {
            let bin = (request.at().as_secs_f64() - outcome.at.as_secs_f64() - FROM) / BIN;
            if bin >= 0.0
                && let Some(bin) = bins.get_mut(bin as usize)
            {
                bin.push(request);
            }
        }
        let filled_bins = bins.iter().enumerate().filter(|(_, requests)| !requests.is_empty());
        let steps = filled_bins.flat_map(|(bin, requests)| {
            let (from, value) = (FROM + bin as f64 * BIN, bin_value(requests));
            [(from, value), (from + BIN, value)]
        });
        let (name, colour) = (outcome.product.pair_name().to_owned(), colour(outcome.product));
        series.push(Series { name, colour, dashes: None, points: steps.collect() });
    }
    let mark = |at: f64, name: &str, colour| Series {
        name: name.to_owned(),
        colour,
        dashes: Some((5, 4)),
        points: vec![(at, min), (at, max)],
    };
    series.push(mark(0.0, "failure", COLOURS[5]));
    series.push(mark(fault.bound().as_secs_f64(), "bound", COLOURS[4]));
    let (x, y) = (("seconds since the failure", FROM, TO), (name, min, max));
    lines(&Axes { x, y, is_log }, &series)
}
