//! The measurements as CSV files: a row for each step, and for each request around a failure.

use std::path::Path;

use super::results::Results;
use crate::balancer_spec::Product;
use crate::downloads::DownloadStats;
use crate::measure::{Cpu, RequestStats};
use crate::process::Error;

/// The columns of request statistics.
const STATS: [&str; 14] = [
    "asked",
    "answered_s",
    "megabytes_s",
    "refused",
    "reset",
    "timed_out",
    "wrong",
    "loss",
    "mean_ms",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "p999_ms",
    "late_p99_ms",
];
/// The columns of CPU utilization: of processes, each kind alone and all together, in processors; of the
/// machine and of its other programs, as fractions of all processors; and of the busiest thread of each kind of process.
const CPU: [&str; 9] = [
    "director_cpu",
    "server_cpu",
    "clients_cpu",
    "cluster_cpu",
    "machine_busy",
    "others_busy",
    "director_thread",
    "server_thread",
    "clients_thread",
];

pub(super) fn write(results: &Results, folder: &Path) -> Result<(), Error> {
    let name = |product: Option<Product>| product.map_or("alone", Product::name).to_owned();
    let own = ["whose", "servers", "offered_s"];
    let steps = [("performance.csv", &results.performance), ("ceiling.csv", &results.ceiling)];
    for (file, steps) in steps {
        let rows = steps.iter().map(|step| {
            let own = vec![name(step.product), step.servers.to_string(), three(step.offered)];
            [own, stats(&step.stats), cpu(&step.cpu)].concat()
        });
        table(folder, file, &own, &[&STATS, &CPU], rows)?;
    }

    let rows = results.schedulers.iter().map(|ruled| {
        let shares = ruled.shares().map(three);
        let own = [&[name(Some(ruled.product)), ruled.scheduler.clone()], &shares[..]].concat();
        [own, stats(&ruled.stats), cpu(&ruled.cpu)].concat()
    });
    let own = ["whose", "rule", "share_1", "share_2", "share_3", "share_4"];
    table(folder, "schedulers.csv", &own, &[&STATS, &CPU], rows)?;

    let outcomes = &results.redundancy;
    let rows = outcomes.iter().map(|outcome| {
        let fault = outcome.fault;
        let times = [outcome.gap(), outcome.last_loss(), fault.bound()];
        let times = times.map(|time| three(time.as_secs_f64() * 1e3));
        let own = [&[name(Some(outcome.product)), fault.name().to_owned()], &times[..]].concat();
        let DownloadStats { under_way, can_survive, survived } = outcome.downloads;
        let downloads = [under_way, can_survive, survived].map(|count| count.to_string());
        let cpu = outcome.cpu.map(three);
        [own, stats(&outcome.stats), cpu.to_vec(), downloads.to_vec()].concat()
    });
    let own = ["whose", "fault", "gap_ms", "last_lost_ms", "promise_ms"];
    let downloads = ["downloads", "downloads_can_survive", "downloads_survived"];
    let more: [&[_]; 3] = [&STATS, &["active_cpu", "standby_cpu"], &downloads];
    table(folder, "redundancy.csv", &own, &more, rows)?;

    let rows = outcomes.iter().flat_map(|outcome| {
        outcome.requests.iter().map(move |request| {
            vec![
                name(Some(outcome.product)),
                outcome.fault.name().to_owned(),
                three((request.at_us as f64 - outcome.at.as_micros() as f64) / 1e3),
                three(request.took_us as f64 / 1e3),
                format!("{:?}", request.fate),
                request.server.map_or_else(String::new, |server| server.to_string()),
            ]
        })
    });
    let own = ["whose", "fault", "sent_ms", "took_ms", "fate", "server"];
    table(folder, "time-lines.csv", &own, &[], rows)
}

fn table(
    folder: &Path,
    name: &str,
    own: &[&str],
    more: &[&[&str]],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<(), Error> {
    let mut writer = csv::Writer::from_path(folder.join(name))?;
    writer.write_record(own.iter().chain(more.iter().copied().flatten()))?;
    for row in rows {
        writer.write_record(row)?;
    }
    Ok(writer.flush()?)
}

fn stats(stats: &RequestStats) -> Vec<String> {
    let RequestStats { requests, refused, reset, timed_out, wrong, .. } = stats;
    let counts = [refused, reset, timed_out, wrong].map(u64::to_string);
    let times =
        [stats.loss, stats.mean_ms, stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.p999_ms];
    let mut cells = vec![requests.to_string(), three(stats.answered), three(stats.megabytes)];
    cells.extend(counts);
    cells.extend(times.map(three));
    cells.push(three(stats.late_ms));
    cells
}

fn cpu(cpu: &Cpu) -> Vec<String> {
    let Cpu { director, server, clients, cluster, machine, others, busiest } = cpu;
    let busiest = [busiest.director, busiest.server, busiest.clients];
    [&[*director, *server, *clients, *cluster, *machine, *others], &busiest[..]]
        .concat()
        .into_iter()
        .map(three)
        .collect()
}

/// Formats a number with three decimals; empty for an unknown number.
fn three(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { String::new() }
}
