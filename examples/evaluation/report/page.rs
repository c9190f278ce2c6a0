//! The report as one self-contained HTML page.

use std::fmt::Write;
use std::time::SystemTime;

use super::claims::claims;
use super::figures::{self, Processes};
use super::results::Results;
use crate::balancer_spec::{ADVERT, CHECK, Product};
use crate::ceiling;
use crate::downloads::{self, DownloadStats};
use crate::fault::Fault;
use crate::measure::{Busiest, Cpu, RequestStats};
use crate::plan::{CLIENT_TIMEOUT, SERVER, WORK};
use crate::process::{Error, describe};
use crate::redundancy::{self, RATE};
use crate::schedulers;
use crate::server::BODY;

const THROUGHPUT: &str = "Throughput: answers a second over requests a second";
const DOWNLOADS: &str = "Long downloads that survive a failure";

pub(super) fn page(results: &Results) -> Result<String, Error> {
    let mut page = String::new();
    let date = humantime::format_rfc3339_seconds(SystemTime::now());
    let command = match results.plan.name {
        "quick" => "cargo run --release --example evaluation -- --quick",
        _ => "cargo run --release --example evaluation",
    };
    write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>lvs: evaluation</title><style>{}</style><main>\
         <h1>A single server compared with a cluster, and the requests that a failure loses</h1>\
         <p>{} · {date} · {} s · <code>{command}</code></p>",
        include_str!("page.css"),
        escaped(&describe()),
        results.duration.as_secs()
    )?;
    for left_out in &results.plan.left_out {
        write!(page, "<p><b>{}</b></p>", escaped(left_out))?;
    }
    write_claims(&mut page, results)?;
    performance(&mut page, results)?;
    scheduling(&mut page, results)?;
    ceilings(&mut page, results)?;
    redundancy(&mut page, results)?;
    page += "</main></html>\n";
    Ok(page)
}

/// Returns the charts that are files of their own, by their names.
pub(super) fn charts(results: &Results) -> Result<Vec<(&'static str, String)>, Error> {
    let outcomes = &results.redundancy;
    let mut charts = vec![("throughput.svg", labelled(&figures::throughput(results)?, THROUGHPUT))];
    if !outcomes.is_empty() {
        charts.push(("downloads.svg", labelled(&figures::downloads(outcomes)?, DOWNLOADS)));
    }
    let killed = Fault::DirectorKilled;
    if outcomes.iter().any(|outcome| outcome.fault == killed) {
        let svg = figures::answered(outcomes, killed)?;
        charts.push(("director-killed.svg", labelled(&svg, killed.name())));
    }
    Ok(charts)
}

fn write_claims(page: &mut String, results: &Results) -> Result<(), Error> {
    *page += "<h2>Summary</h2><ul class=\"claims\">";
    for claim in claims(results) {
        let (class, mark) = if claim.holds { ("yes", "✓") } else { ("no", "✗") };
        write!(page, "<li class=\"{class}\"><b>{mark}</b> {}</li>", escaped(&claim.text))?;
    }
    *page += "</ul>";
    Ok(())
}

fn performance(page: &mut String, results: &Results) -> Result<(), Error> {
    let (workers, backlog) = (SERVER.workers, SERVER.backlog);
    let service = SERVER.service.as_millis();
    let place = match results.plan.is_in_namespaces {
        true => {
            "They run in network namespaces: clients on one network, servers on another, and the balancer \
             on both. A server alone is reached by the director's machine as a router."
        }
        false => "They run on loopback, because network namespaces need root.",
    };
    write!(
        page,
        "<h2>Performance</h2><p>Each real server is a process with {workers} workers. The service time of a \
         request is random (exponential) with a mean of {service} ms, {} µs of which use a processor; the \
         capacity of a server is {:.0} requests a second. {backlog} more requests may wait; a request that \
         finds the backlog full is answered with status 503. An answer has {BODY} bytes. Requests arrive at \
         random moments (Poisson), each on a connection of its own, whether or not earlier requests were \
         answered. A client waits {} ms for an answer; response times count from the moment at which a \
         request was due. Each step is measured for {:.1} s. Servers, balancer and clients share this \
         machine. {place}</p>\
         <p>The kernel's work for packets is in the CPU time of the task that it interrupts: that of the \
         packet engine is in the time of clients and servers, not of the director. Balancers are compared \
         by the CPU time of all processes together, with the kernel's threads for software interrupts \
         (ksoftirqd), and with that of a server alone. It has no time of other programs of this machine, \
         nor of interrupts of an idle processor, for which the kernel charges no task; that of the whole \
         machine has both.</p>\
         <p>Theory is the queue M/M/c/K: Erlang's formula for workers with a backlog. The throughput at \
         which a cluster saturates is the mean over the steps whose load is at least a seventh above the \
         capacity of its servers.</p>",
        WORK.as_micros(),
        SERVER.capacity(),
        CLIENT_TIMEOUT.as_millis(),
        results.plan.step.as_secs_f64()
    )?;
    *page += "<div class=\"charts\">";
    figure(page, &figures::throughput(results)?, THROUGHPUT)?;
    figure(
        page,
        &figures::loss(results)?,
        "Request loss: requests refused, reset, timed out or answered with an error",
    )?;
    figure(
        page,
        &figures::response(results)?,
        "Mean response time of answered requests (logarithmic axis)",
    )?;
    figure(
        page,
        &figures::tail(results)?,
        "99th percentile of the response time of answered requests (logarithmic axis)",
    )?;
    figure(
        page,
        &figures::cpu(results, Processes::All)?,
        "CPU utilization of balancer, servers and clients together, with the kernel's work for packets",
    )?;
    figure(
        page,
        &figures::cpu(results, Processes::Server)?,
        "CPU utilization of each real server",
    )?;
    figure(
        page,
        &figures::cpu(results, Processes::Balancer)?,
        "CPU utilization of the balancer's process: most work of the packet engine is not in it",
    )?;
    *page += "</div>";
    let heads = [&["", "servers", "offered/s"], &STATS[..], &CPU[..]].concat();
    let rows = results.performance.iter().map(|point| {
        let product = point.product.map_or("alone", Product::name).to_owned();
        let own = vec![product, point.servers.to_string(), format!("{:.0}", point.offered)];
        [own, stats(&point.stats), cpu(&point.cpu)].concat()
    });
    table(page, "All steps", &heads, rows, false)
}

fn scheduling(page: &mut String, results: &Results) -> Result<(), Error> {
    let fair = schedulers::fair().map(percent);
    write!(
        page,
        "<h2>Schedulers, with servers of unequal capacity</h2><p>Four servers with 8, 4, 2 and 2 workers \
         and weights in proportion, {:.0} requests a second, which is {:.0} % of their capacity, from 65 000 \
         client addresses. The shares by weight are {}. For <code>first</code> and <code>ovf</code> the \
         connection limit of a server is its number of workers. The table is sorted by the 99th \
         percentile.</p>",
        schedulers::offered(),
        100.0 * schedulers::LOAD,
        fair.join(", ")
    )?;
    let mut sorted: Vec<_> = results.schedulers.iter().collect();
    let rank = |stats: &RequestStats| (stats.loss > 0.02, stats.p99_ms);
    sorted.sort_by(|a, b| {
        let ((a_loses, a), (b_loses, b)) = (rank(&a.stats), rank(&b.stats));
        a_loses.cmp(&b_loses).then(a.total_cmp(&b))
    });
    let heads = [
        "",
        "scheduler",
        "shares",
        "answers/s",
        "lost",
        "mean ms",
        "p50",
        "p99",
        "p99.9",
        "balancer CPU",
        "remark",
    ];
    let rows = sorted.into_iter().map(|result| {
        let remark = schedulers::remark(&result.scheduler).to_owned();
        let shares = result.shares().map(percent).join(" ");
        let stats = &result.stats;
        let times = [stats.mean_ms, stats.p50_ms, stats.p99_ms, stats.p999_ms].map(time);
        let mut row = vec![result.product.name().to_owned(), result.scheduler.clone(), shares];
        row.extend([format!("{:.0}", stats.answered), percent(stats.loss)]);
        row.extend(times);
        row.extend([percent(result.cpu.director), remark]);
        row
    });
    table(page, "All schedulers", &heads, rows, true)
}

fn ceilings(page: &mut String, results: &Results) -> Result<(), Error> {
    *page += "<h2>The limit of the balancer</h2><p>Servers that answer at once, two of them behind a \
              balancer, under a rising load. A rate holds unless one request in a hundred is lost or one \
              in a hundred is sent 20 ms late, in three of three attempts. The limit is then the \
              busiest resource: all processors of the machine, or one thread of the clients, of a server \
              or of the balancer.</p>";
    let ends = ["busiest thread: balancer, server, clients"];
    let heads = [&["", "offered/s", "holds"], &STATS[..], &CPU[..], &ends].concat();
    let rows = results.ceiling.iter().map(|rate| {
        let product = rate.product.map_or("alone", Product::name).to_owned();
        let holds = match ceiling::holds(rate) {
            true => "yes".to_owned(),
            false => format!("no: {}", ceiling::limit(rate)),
        };
        let own = vec![product, format!("{:.0}", rate.offered), holds];
        let Busiest { director, server, clients } = &rate.cpu.busiest;
        let busiest =
            [director, server, clients].map(|utilization| percent(*utilization)).join(" ");
        [own, stats(&rate.stats), cpu(&rate.cpu), vec![busiest]].concat()
    });
    table(page, "All steps", &heads, rows, true)
}

fn redundancy(page: &mut String, results: &Results) -> Result<(), Error> {
    write!(
        page,
        "<h2>Redundancy</h2><p>{RATE:.0} requests a second to four servers through the active of two \
         directors, each in a network namespace of its own, as clients and servers are. Servers \
         are checked every {} ms, and two failed checks take a server down; directors send advertisements \
         every {} ms. The bound of the loss time is, for a server, the time until two checks have failed; \
         for a director, VRRP's master down interval: three advertisement intervals and the skew time. A \
         lost request counts by the moment at which it was due. Requests under way on a failed server are \
         lost with any balancer, and those at a failed director with a proxy. A proxy tries another server \
         if one refuses a connection; the packet engine does not, and the client sees it until the checks \
         have failed. A restarted director listens before it takes over; its loss time counts from the \
         first lost request.</p>\
         <p>{} long downloads are under way at each failure, begun {:.1} s before it. A download survives \
         if every octet comes in order until the end of the run, {} s after the failure. Those from a \
         server that fails are not counted, because no balancer can save them. Directors with the packet \
         engine tell each other of their flows, by their <code>[sync]</code> table. CPU is that of the \
         director's process.</p>",
        CHECK.as_millis(),
        ADVERT.as_millis(),
        downloads::COUNT,
        redundancy::BEGUN_BEFORE.as_secs_f64(),
        redundancy::AFTER.as_secs()
    )?;
    let outcomes = &results.redundancy;
    let heads = [
        "",
        "",
        "lost",
        "refused",
        "reset",
        "timed out",
        "wrong",
        "gap ms",
        "last lost ms",
        "bound ms",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "active CPU",
        "standby CPU",
        "downloads",
        "could survive",
        "survived",
    ];
    let rows = outcomes.iter().map(|outcome| {
        let stats = &outcome.stats;
        let counts =
            [outcome.lost_count() as u64, stats.refused, stats.reset, stats.timed_out, stats.wrong];
        let times = [outcome.gap(), outcome.last_loss(), outcome.fault.bound()];
        let mut row = vec![outcome.fault.name().to_owned(), outcome.product.pair_name().to_owned()];
        row.extend(counts.map(|count| count.to_string()));
        row.extend(times.map(|time| time.as_millis().to_string()));
        row.push(format!("{:.0}", stats.answered));
        row.extend([stats.p50_ms, stats.p99_ms, stats.p999_ms].map(time));
        row.extend(outcome.cpu.map(percent));
        let DownloadStats { under_way, can_survive, survived } = outcome.downloads;
        row.extend([under_way, can_survive, survived].map(|count| count.to_string()));
        row
    });
    table(page, "All failures", &heads, rows, true)?;
    *page += "<div class=\"charts\">";
    figure(page, &figures::downloads(outcomes)?, DOWNLOADS)?;
    for fault in Fault::ALL {
        if outcomes.iter().any(|outcome| outcome.fault == fault) {
            let name = fault.name();
            let name = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
            let both = figures::answered(outcomes, fault)? + &figures::longest(outcomes, fault)?;
            figure(page, &both, &name)?;
        }
    }
    *page += "</div>";
    Ok(())
}

const STATS: [&str; 9] =
    ["answers/s", "MB/s", "lost", "mean ms", "p50", "p90", "p99", "p99.9", "clients late"];
const CPU: [&str; 6] = [
    "balancer CPU",
    "each server CPU",
    "clients CPU",
    "all processes CPU",
    "machine CPU",
    "of other programs",
];

fn stats(stats: &RequestStats) -> Vec<String> {
    let mut cells = vec![format!("{:.0}", stats.answered), format!("{:.1}", stats.megabytes)];
    cells.push(percent(stats.loss));
    let times =
        [stats.mean_ms, stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.p999_ms, stats.late_ms];
    cells.extend(times.map(time));
    cells
}

fn cpu(cpu: &Cpu) -> Vec<String> {
    let processes = [cpu.director, cpu.server, cpu.clients, cpu.cluster];
    [&processes[..], &[cpu.machine, cpu.others]].concat().into_iter().map(percent).collect()
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

/// Formats milliseconds; a dash without any answer.
fn time(millis: f64) -> String {
    if millis.is_finite() { format!("{millis:.1}") } else { "–".to_owned() }
}

fn figure(page: &mut String, svg: &str, caption: &str) -> Result<(), Error> {
    let svg = labelled(svg, caption);
    Ok(write!(page, "<figure><figcaption>{}</figcaption>{svg}</figure>", escaped(caption))?)
}

/// Returns a chart with a label for screen readers.
fn labelled(svg: &str, label: &str) -> String {
    svg.replace("<svg ", &format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(label)))
}

fn table(
    page: &mut String,
    name: &str,
    heads: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    is_open: bool,
) -> Result<(), Error> {
    let open = if is_open { " open" } else { "" };
    write!(page, "<details{open}><summary>{name}</summary><div class=\"wide\"><table><thead><tr>")?;
    for head in heads {
        write!(page, "<th>{head}</th>")?;
    }
    *page += "</tr></thead><tbody>";
    for row in rows {
        *page += "<tr>";
        for cell in row {
            write!(page, "<td>{}</td>", escaped(&cell))?;
        }
        *page += "</tr>";
    }
    *page += "</tbody></table></div></details>";
    Ok(())
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // A number and its percent sign stay on one line.
    text.replace('"', "&quot;").replace(" %", "&nbsp;%")
}
