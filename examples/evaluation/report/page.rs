//! The report as a page: one file that needs nothing else.

use std::fmt::Write;
use std::time::SystemTime;

use super::claims::claims;
use super::{Results, figures};
use crate::balancer::{ADVERT, CHECK, Whose};
use crate::ceiling;
use crate::measure::{Busiest, Cpu, Seen};
use crate::plan::{PATIENCE, SERVER, WORK};
use crate::process::{Error, describe};
use crate::redundancy::{Fault, RATE};
use crate::schedulers;
use crate::server::BODY;

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
         <title>lvs: the evaluation</title><style>{}</style><main>\
         <h1>A single server against the cluster, and what a failure costs</h1>\
         <p>{} · {date} · {} s · <code>{command}</code></p>",
        include_str!("page.css"),
        escaped(&describe()),
        results.took.as_secs()
    )?;
    in_short(&mut page, results)?;
    performance(&mut page, results)?;
    scheduling(&mut page, results)?;
    ceilings(&mut page, results)?;
    redundancy(&mut page, results)?;
    page += "</main></html>\n";
    Ok(page)
}

fn in_short(page: &mut String, results: &Results) -> Result<(), Error> {
    *page += "<h2>In short</h2><ul class=\"claims\">";
    for claim in claims(results) {
        let (class, mark) = if claim.holds { ("yes", "✓") } else { ("no", "✗") };
        write!(page, "<li class=\"{class}\"><b>{mark}</b> {}</li>", escaped(&claim.text))?;
    }
    *page += "</ul>";
    Ok(())
}

fn performance(page: &mut String, results: &Results) -> Result<(), Error> {
    let (workers, line) = (SERVER.workers, SERVER.line);
    let service = SERVER.service.as_millis();
    write!(
        page,
        "<h2>Performance</h2><p>Each real server is a process with {workers} workers. A request takes \
         one of them {service} ms in the mean, at random (exponential), {} µs of which are work for a \
         processor; so a server can do {:.0} requests a second. {line} more may wait, and whoever comes \
         when these are there is told 503. An answer has {BODY} bytes. Clients ask at random moments \
         (Poisson), each on a connection of its own, whether or not those before were answered, and \
         wait {} ms; response times are counted from when a request was to be sent. Each step is \
         measured for {:.1} s. Servers, director and clients share this machine.</p>\
         <p>Theory is the queue M/M/c/K: Erlang's formula for workers with a line. A cluster's knee is \
         the mean throughput of the steps at which a seventh more than its servers' capacity is offered, \
         or more than that.</p>",
        WORK.as_micros(),
        SERVER.capacity(),
        PATIENCE.as_millis(),
        results.plan.step.as_secs_f64()
    )?;
    *page += "<div class=\"charts\">";
    figure(page, &figures::throughput(results)?, "Throughput: answers over requests")?;
    figure(
        page,
        &figures::loss(results)?,
        "Request loss: refused, reset, timed out or answered by an error",
    )?;
    figure(
        page,
        &figures::response(results)?,
        "Response time of what was answered, in the mean; the axis is logarithmic",
    )?;
    figure(
        page,
        &figures::tail(results)?,
        "Response time of what was answered: 99 of 100 took less",
    )?;
    figure(
        page,
        &figures::cpu(results, true)?,
        "CPU utilization of a real server: the work spreads",
    )?;
    figure(page, &figures::cpu(results, false)?, "CPU utilization of what balances")?;
    *page += "</div>";
    let heads = [&["", "servers", "offered/s"], &SEEN[..], &CPU[..]].concat();
    let rows = results.performance.iter().map(|point| {
        let whose = point.whose.map_or("alone", Whose::name).to_owned();
        let own = vec![whose, point.servers.to_string(), format!("{:.0}", point.offered)];
        [own, seen(&point.seen), cpu(&point.cpu)].concat()
    });
    table(page, "All steps", &heads, rows, false)
}

fn scheduling(page: &mut String, results: &Results) -> Result<(), Error> {
    let fair = schedulers::fair().map(percent);
    write!(
        page,
        "<h2>Schedulers, with servers that are not equal</h2><p>Four servers with 8, 4, 2 and 2 workers \
         and weights to match, {:.0} requests a second, which is {:.0} % of what they can do, from 65 000 \
         client addresses. The fair shares are {}. For <code>first</code> and <code>ovf</code> the \
         balancer knows how many requests a server can work on. Sorted by the 99th percentile.</p>",
        schedulers::offered(),
        100.0 * schedulers::LOAD,
        fair.join(", ")
    )?;
    let mut ruled: Vec<_> = results.schedulers.iter().collect();
    let rank = |seen: &Seen| (seen.loss > 0.02, seen.p99_ms);
    ruled.sort_by(|a, b| {
        let ((a_loses, a), (b_loses, b)) = (rank(&a.seen), rank(&b.seen));
        a_loses.cmp(&b_loses).then(a.total_cmp(&b))
    });
    let heads = [
        "",
        "rule",
        "shares",
        "answers/s",
        "lost",
        "mean ms",
        "p50",
        "p99",
        "p99.9",
        "director CPU",
        "",
    ];
    let rows = ruled.into_iter().map(|it| {
        let remark = schedulers::remark(&it.rule).to_owned();
        let shares = it.shares().map(percent).join(" ");
        let seen = &it.seen;
        let times = [seen.mean_ms, seen.p50_ms, seen.p99_ms, seen.p999_ms].map(time);
        let mut row = vec![it.whose.name().to_owned(), it.rule.clone(), shares];
        row.extend([format!("{:.0}", seen.answered), percent(seen.loss)]);
        row.extend(times);
        row.extend([percent(it.cpu.director), remark]);
        row
    });
    table(page, "Rules", &heads, rows, true)
}

fn ceilings(page: &mut String, results: &Results) -> Result<(), Error> {
    *page += "<h2>When the servers are not the limit</h2><p>Servers that answer at once, two of them \
              behind a balancer, and more and more requests, until one in a hundred is lost or one \
              client in a hundred is 20 ms late, three times of three. The limit is then what is \
              busiest: the machine, whose processors all share, or one thread of the clients, of a \
              server or of what balances.</p>";
    let ends = ["busiest thread: director, server, clients"];
    let heads = [&["", "offered/s", "holds"], &SEEN[..], &CPU[..], &ends].concat();
    let rows = results.ceiling.iter().map(|rate| {
        let whose = rate.whose.map_or("alone", Whose::name).to_owned();
        let holds = match ceiling::holds(rate) {
            true => "yes".to_owned(),
            false => format!("no: {}", ceiling::limit(rate)),
        };
        let own = vec![whose, format!("{:.0}", rate.offered), holds];
        let Busiest { director, server, clients } = &rate.cpu.busiest;
        let busiest = [director, server, clients].map(|it| percent(*it)).join(" ");
        [own, seen(&rate.seen), cpu(&rate.cpu), vec![busiest]].concat()
    });
    table(page, "All steps", &heads, rows, true)
}

fn redundancy(page: &mut String, results: &Results) -> Result<(), Error> {
    write!(
        page,
        "<h2>Redundancy</h2><p>{RATE:.0} requests a second to four servers through the active of two \
         directors, each in a network of its own, with clients and servers in a third. Servers are \
         checked each {} ms, and two failures take one down; directors advertise each {} ms. The promise \
         for a server is the time until two checks have failed, for a director what VRRP says: three \
         intervals and a part of one. A request that is lost counts by when it was to be sent; those in \
         the hands of what dies are lost with it, whoever balances. A director that comes back listens \
         first; what it costs is counted from when it takes over.</p>",
        CHECK.as_millis(),
        ADVERT.as_millis()
    )?;
    if let Some(left_out) = results.redundancy.left_out {
        write!(page, "<p><b>{left_out}</b></p>")?;
    }
    let outcomes = &results.redundancy.outcomes;
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
        "promise ms",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "active CPU",
        "standby CPU",
    ];
    let rows = outcomes.iter().map(|outcome| {
        let seen = &outcome.seen;
        let counts =
            [outcome.lost_count() as u64, seen.refused, seen.reset, seen.timed_out, seen.wrong];
        let times = [outcome.gap(), outcome.last(), outcome.fault.promise()];
        let mut row = vec![outcome.fault.name().to_owned(), pair(outcome.whose).to_owned()];
        row.extend(counts.map(|count| count.to_string()));
        row.extend(times.map(|time| time.as_millis().to_string()));
        row.push(format!("{:.0}", seen.answered));
        row.extend([seen.p50_ms, seen.p99_ms, seen.p999_ms].map(time));
        row.extend(outcome.cpu.map(percent));
        row
    });
    table(page, "All failures", &heads, rows, true)?;
    *page += "<div class=\"charts\">";
    for fault in Fault::ALL {
        if outcomes.iter().any(|it| it.fault == fault) {
            let name = fault.name();
            let name = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
            let both = figures::answered(outcomes, fault)? + &figures::longest(outcomes, fault)?;
            figure(page, &both, &name)?;
        }
    }
    *page += "</div>";
    Ok(())
}

fn pair(whose: Whose) -> &'static str {
    match whose {
        Whose::Ours => "lvs",
        Whose::Theirs => "keepalived, HAProxy",
    }
}

const SEEN: [&str; 9] =
    ["answers/s", "MB/s", "lost", "mean ms", "p50", "p90", "p99", "p99.9", "clients late"];
const CPU: [&str; 4] = ["director CPU", "each server", "clients", "machine"];

fn seen(seen: &Seen) -> Vec<String> {
    let mut cells = vec![format!("{:.0}", seen.answered), format!("{:.1}", seen.megabytes)];
    cells.push(percent(seen.loss));
    let times = [seen.mean_ms, seen.p50_ms, seen.p90_ms, seen.p99_ms, seen.p999_ms, seen.late_ms];
    cells.extend(times.map(time));
    cells
}

fn cpu(cpu: &Cpu) -> Vec<String> {
    [cpu.director, cpu.server, cpu.clients, cpu.machine].map(percent).to_vec()
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

/// In milliseconds; nothing for what nobody had.
fn time(millis: f64) -> String {
    if millis.is_finite() { format!("{millis:.1}") } else { "–".to_owned() }
}

fn figure(page: &mut String, svg: &str, caption: &str) -> Result<(), Error> {
    let caption = escaped(caption);
    // What a reader of the page who does not see it is told.
    let svg = svg.replace("<svg ", &format!("<svg role=\"img\" aria-label=\"{caption}\" "));
    Ok(write!(page, "<figure><figcaption>{caption}</figcaption>{svg}</figure>")?)
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
    // A number and its sign stay together.
    text.replace('"', "&quot;").replace(" %", "&nbsp;%")
}
