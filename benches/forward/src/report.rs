//! The report of a run: tables, CSV rows, and whether the goals hold.

use std::fmt::Write as _;

use anyhow::Result;

use crate::cell::Cell;
use crate::subject::Subject;
use crate::traffic::Traffic;
use crate::workload::balance::Balance;
use crate::workload::spec::{Id, Workload};

/// The figures of all rounds of a workload, with a column for each subject.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) workload: Workload,
    pub(crate) columns: Vec<(Subject, Vec<Cell>)>,
}

/// Median, least and most.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        Some(Self { median: values[values.len() / 2], least, most })
    }

    fn show(self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
    }
}

impl Results {
    fn of(&self, subject: Subject) -> Option<&[Cell]> {
        let is_subject = |(column, _): &&(Subject, Vec<Cell>)| *column == subject;
        self.columns.iter().find(is_subject).map(|(_, cells)| cells.as_slice())
    }

    /// Returns the ratio of the costs of two subjects in the same round.
    fn ratio(&self, subject: Subject, reference: Subject) -> Option<Spread> {
        let pairs = self.of(subject)?.iter().zip(self.of(reference)?);
        Spread::of(pairs.filter_map(|(a, b)| Some(a.cost? / b.cost?)))
    }

    /// Returns the reference subject, and its second process.
    fn references(&self) -> (Subject, Subject) {
        match self.workload.traffic {
            Traffic::Tcp => (Subject::Haproxy, Subject::HaproxyAgain),
            Traffic::Echo | Traffic::Sink => (Subject::Nginx, Subject::NginxAgain),
        }
    }

    /// Returns a Markdown table.
    pub(crate) fn table(&self) -> String {
        let (reference, again) = self.references();
        let unit = self.workload.unit;
        let mut text = format!("### {}\n\n", self.workload.title);
        let _ = writeln!(
            text,
            "| | {} | against {} | verdict | {} | p50 us | p99 us | lost |\n|---|---|---|---|---|---|---|---|",
            unit.name,
            reference.name(),
            unit.rate
        );
        let noise = self.ratio(again, reference);
        for (subject, cells) in &self.columns {
            let spread = |value: fn(&Cell) -> f64| Spread::of(cells.iter().map(value));
            let median = |value| spread(value).map_or(0.0, |spread| spread.median);
            let cost = Spread::of(cells.iter().filter_map(|cell| cell.cost));
            let ratio = self.ratio(*subject, reference).filter(|_| *subject != reference);
            let verdict = ratio.zip(noise).filter(|_| *subject != again).map(|(ratio, noise)| {
                match ratio.median {
                    median if median < noise.least => "better",
                    median if median > noise.most => "worse",
                    _ => "parity (inside A/A)",
                }
            });
            let rate = median(|cell| cell.rate);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.2} % |",
                subject.name(),
                cost.map_or_else(|| "-".to_owned(), |spread| spread.show(digits(spread.median))),
                ratio.map_or_else(|| "-".to_owned(), |spread| spread.show(2)),
                verdict.unwrap_or("-"),
                if rate < 100.0 { format!("{rate:.2}") } else { format!("{rate:.0}") },
                median(|cell| cell.p50),
                median(|cell| cell.p99),
                median(|cell| cell.lost) * 100.0,
            );
        }
        if let Some(ratio) = self.ratio(Subject::Lvs, Subject::LvsBefore) {
            let _ = writeln!(text, "\nlvs against lvs-before: {}", ratio.show(3));
        }
        text
    }

    /// Returns CSV rows: `workload,subject,round,cost,rate,p50_us,p99_us,lost`.
    pub(crate) fn rows(&self) -> String {
        let mut text = String::new();
        for (subject, cells) in &self.columns {
            for (round, cell) in cells.iter().enumerate() {
                let cost = cell.cost.map_or_else(String::new, |cost| cost.to_string());
                let Cell { rate, p50, p99, lost, .. } = cell;
                let (id, name) = (self.workload.id, subject.name());
                let _ = writeln!(text, "{id:?},{name},{round},{cost},{rate},{p50},{p99},{lost}");
            }
        }
        text
    }
}

fn digits(value: f64) -> usize {
    match value {
        _ if value < 1.0 => 3,
        _ if value < 100.0 => 1,
        _ => 0,
    }
}

/// A goal for a figure.
struct Goal {
    workload: Id,
    /// The subject to compare with; `None` for an absolute goal.
    against: Option<Subject>,
    at_most: f64,
}

const fn goal(workload: Id, against: Option<Subject>, at_most: f64) -> Goal {
    Goal { workload, against, at_most }
}

const GOALS: &[Goal] = &[
    goal(Id::W1, Some(Subject::Haproxy), 1.0),
    goal(Id::W2, Some(Subject::Haproxy), 1.0),
    goal(Id::W3a, Some(Subject::Haproxy), 0.40),
    goal(Id::W3a, Some(Subject::HaproxySplice), 1.0),
    goal(Id::W3b, Some(Subject::Haproxy), 0.40),
    goal(Id::W3b, Some(Subject::HaproxySplice), 1.0),
    goal(Id::W3c, Some(Subject::Haproxy), 0.40),
    goal(Id::W3c, Some(Subject::HaproxySplice), 1.0),
    goal(Id::W4, Some(Subject::Haproxy), 0.5),
    goal(Id::W4, None, 1700.0),
    goal(Id::W5a, Some(Subject::Nginx), 0.90),
    goal(Id::W5b, Some(Subject::Nginx), 0.90),
    goal(Id::W5c, Some(Subject::Nginx), 0.30),
];

/// Returns a table of the goals. A goal holds if the median meets it, also within the spread of the
/// A/A pair.
pub(crate) fn goals(all: &[Results], balance: Option<&Balance>) -> String {
    let mut text = "### Goals\n\n| workload | measured | goal | |\n|---|---|---|---|\n".to_owned();
    for goal in GOALS {
        let Some(results) = all.iter().find(|results| results.workload.id == goal.workload) else {
            continue;
        };
        let (reference, again) = results.references();
        let (reference_name, measured) = match goal.against {
            Some(against) => (against.name(), results.ratio(Subject::Lvs, against)),
            None => {
                let cells = results.of(Subject::Lvs).unwrap_or_default();
                ("itself", Spread::of(cells.iter().filter_map(|cell| cell.cost)))
            }
        };
        let Some(measured) = measured else { continue };
        let noise = results.ratio(again, reference).filter(|_| goal.against.is_some());
        let leeway = noise.map_or(1.0, |noise| noise.most / noise.median);
        let holds = match measured.median {
            median if median <= goal.at_most => "holds",
            median if median <= goal.at_most * leeway => "holds within A/A",
            _ => "**missed**",
        };
        let _ = writeln!(
            text,
            "| {}, against {reference_name} | {} | <= {} | {holds} |",
            results.workload.title,
            measured.show(if goal.against.is_some() { 2 } else { 0 }),
            goal.at_most,
        );
    }
    if let Some(balance) = balance {
        let holds = match balance.difference() {
            Some(part) if part <= 0.1 => "holds",
            Some(_) => "**missed**",
            None => "-",
        };
        let _ = writeln!(text, "| {balance} | | <= 10 % | {holds} |");
    }
    text
}

/// Writes the CSV rows of all workloads to a file.
pub(crate) fn write(path: &std::path::Path, all: &[Results]) -> Result<()> {
    let mut text = "workload,subject,round,cost,rate,p50_us,p99_us,lost\n".to_owned();
    all.iter().for_each(|results| text.push_str(&results.rows()));
    Ok(std::fs::write(path, text)?)
}
