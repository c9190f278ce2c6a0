//! The same as CSV: one line for each step, and for each request around a failure.

use std::path::Path;

use super::Results;
use crate::balancer::Whose;
use crate::measure::{Cpu, Seen};
use crate::process::Error;

/// What clients saw, as columns.
const SEEN: [&str; 14] = [
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
/// What processes had, in processors; the part of all processors that was busy; and of its time the
/// busiest thread of each.
const CPU: [&str; 7] = [
    "director_cpu",
    "server_cpu",
    "clients_cpu",
    "machine_busy",
    "director_thread",
    "server_thread",
    "clients_thread",
];

pub(super) fn write(results: &Results, folder: &Path) -> Result<(), Error> {
    let name = |whose: Option<Whose>| whose.map_or("alone", Whose::name).to_owned();
    let own = ["whose", "servers", "offered_s"];
    let steps = [("performance.csv", &results.performance), ("ceiling.csv", &results.ceiling)];
    for (file, steps) in steps {
        let rows = steps.iter().map(|step| {
            let own = vec![name(step.whose), step.servers.to_string(), three(step.offered)];
            [own, seen(&step.seen), cpu(&step.cpu)].concat()
        });
        table(folder, file, &own, &[&SEEN, &CPU], rows)?;
    }

    let rows = results.schedulers.iter().map(|ruled| {
        let shares = ruled.shares().map(three);
        let own = [&[name(Some(ruled.whose)), ruled.rule.clone()], &shares[..]].concat();
        [own, seen(&ruled.seen), cpu(&ruled.cpu)].concat()
    });
    let own = ["whose", "rule", "share_1", "share_2", "share_3", "share_4"];
    table(folder, "schedulers.csv", &own, &[&SEEN, &CPU], rows)?;

    let outcomes = &results.redundancy.outcomes;
    let rows = outcomes.iter().map(|outcome| {
        let fault = outcome.fault;
        let times = [outcome.gap(), outcome.last(), fault.promise()];
        let times = times.map(|time| three(time.as_secs_f64() * 1e3));
        let own = [&[name(Some(outcome.whose)), fault.name().to_owned()], &times[..]].concat();
        [own, seen(&outcome.seen), outcome.cpu.map(three).to_vec()].concat()
    });
    let own = ["whose", "fault", "gap_ms", "last_lost_ms", "promise_ms"];
    table(folder, "redundancy.csv", &own, &[&SEEN, &["active_cpu", "standby_cpu"]], rows)?;

    let rows = outcomes.iter().flat_map(|outcome| {
        outcome.asked.iter().map(move |asked| {
            vec![
                name(Some(outcome.whose)),
                outcome.fault.name().to_owned(),
                three((asked.at_us as f64 - outcome.at.as_micros() as f64) / 1e3),
                three(asked.took_us as f64 / 1e3),
                format!("{:?}", asked.fate),
                asked.server.map_or_else(String::new, |server| server.to_string()),
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

fn seen(seen: &Seen) -> Vec<String> {
    let Seen { asked, refused, reset, timed_out, wrong, .. } = seen;
    let counts = [refused, reset, timed_out, wrong].map(u64::to_string);
    let times = [seen.loss, seen.mean_ms, seen.p50_ms, seen.p90_ms, seen.p99_ms, seen.p999_ms];
    let mut cells = vec![asked.to_string(), three(seen.answered), three(seen.megabytes)];
    cells.extend(counts);
    cells.extend(times.map(three));
    cells.push(three(seen.late_ms));
    cells
}

fn cpu(cpu: &Cpu) -> Vec<String> {
    let Cpu { director, server, clients, machine, busiest } = cpu;
    let busiest = [busiest.director, busiest.server, busiest.clients];
    [&[*director, *server, *clients, *machine], &busiest[..]]
        .concat()
        .into_iter()
        .map(three)
        .collect()
}

/// With three digits behind the point; nothing for what is not known.
fn three(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { String::new() }
}
