//! The tables of a run, and its CSV rows.

use std::fmt::Write as _;

use anyhow::Result;

use crate::engines::PacketReport;
use crate::running::LoadFigures;
use crate::spec::{Measure, Subject};
use crate::statistics::Spread;

/// The figures of all rounds of a measure, with a column for each subject.
#[derive(Debug)]
pub(crate) struct MeasureResults {
    pub(crate) measure: Measure,
    pub(crate) columns: Vec<(Subject, Vec<LoadFigures>)>,
}

impl MeasureResults {
    /// Returns the costs of a subject by round; nothing of one that was not measured.
    pub(crate) fn costs(&self, subject: Subject) -> Vec<f64> {
        let (nanos, _) = self.measure.scale();
        let cost = |it: &LoadFigures| it.cpu_nanos as f64 / it.units as f64 / nanos;
        self.figures(subject).iter().map(cost).collect()
    }

    fn figures(&self, subject: Subject) -> &[LoadFigures] {
        let mut columns = self.columns.iter();
        columns.find(|(column, _)| *column == subject).map_or(&[], |(_, figures)| figures)
    }

    /// Returns the ratio of the costs of two subjects in the same round.
    pub(crate) fn ratio(&self, subject: Subject, reference: Subject) -> Option<Spread> {
        let pairs = self.costs(subject).into_iter().zip(self.costs(reference));
        Spread::of_median(pairs.map(|(a, b)| a / b))
    }

    /// Returns what a subject adds to another one, as a part of what HAProxy adds to the direct path in the
    /// same round.
    pub(crate) fn added_part(&self, subject: Subject, to: Subject) -> Option<Spread> {
        let (direct, haproxy) = (self.costs(Subject::Direct), self.costs(Subject::Haproxy));
        let pairs = self.costs(subject).into_iter().zip(self.costs(to));
        let rounds = pairs.zip(direct.into_iter().zip(haproxy));
        Spread::of_median(
            rounds.map(|((cost, to), (direct, haproxy))| (cost - to) / (haproxy - direct)),
        )
    }

    /// Returns a Markdown table.
    pub(crate) fn table(&self) -> String {
        let (cost_name, rate_name) = self.measure.units();
        let mut text = format!(
            "### {}\n\n| | redirect | {cost_name} | to forwarding | added, to HAProxy's | {rate_name} | \
             of the core |\n|---|---|---|---|---|---|---|\n",
            self.measure.title(),
        );
        for &(subject, ref figures) in &self.columns {
            let (_, rate_scale) = self.measure.scale();
            let rate = |it: &LoadFigures| it.units as f64 / it.wall_nanos as f64 * 1e9 * rate_scale;
            let rate = Spread::of(figures.iter().map(rate)).map_or(0.0, |it| it.median);
            let core = |it: &LoadFigures| it.cpu_nanos as f64 / it.wall_nanos as f64;
            let core = Spread::of(figures.iter().map(core)).map_or(0.0, |it| it.median);
            let show = |spread: Option<Spread>| spread.map_or("-".to_owned(), |it| it.text(2));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {rate:.*} | {core:.2} |",
                subject.name(),
                subject.redirect().map_or("-", |it| it.name()),
                Spread::of(self.costs(subject)).map_or("-".to_owned(), |it| it.text(digits(it))),
                show(self.ratio(subject, Subject::Forwarding)),
                show(self.added_part(subject, Subject::Direct)),
                if rate < 100.0 { 1 } else { 0 },
            );
        }
        text
    }

    /// Returns CSV rows: see [`write`].
    fn rows(&self) -> String {
        let mut text = String::new();
        for &(subject, ref figures) in &self.columns {
            let name = subject.name();
            let redirect = subject.redirect().map_or("", |it| it.name());
            for (round, (figure, cost)) in figures.iter().zip(self.costs(subject)).enumerate() {
                let LoadFigures { units, cpu_nanos, wall_nanos } = figure;
                let _ = writeln!(
                    text,
                    "{:?},{name},{redirect},{round},{cost},{units},{cpu_nanos},{wall_nanos}",
                    self.measure
                );
            }
        }
        text
    }
}

fn digits(spread: Spread) -> usize {
    if spread.median < 2.0 { 3 } else { 1 }
}

/// Returns a line about who decided the connections of a packet engine.
pub(crate) fn decisions(subject: Subject, report: PacketReport) -> String {
    let PacketReport { upcalls, table_decisions, failures, .. } = report;
    format!(
        "{}: the scheduler was asked for {upcalls} connections, the table decided {table_decisions}, \
         {failures} packets or flows failed",
        subject.name()
    )
}

/// Writes the figures to a file: those of subjects as `measure,subject,redirect,round,cost,units,cpu_ns,wall_ns`,
/// and others as `measure,name,unit,round,value`.
pub(crate) fn write(
    path: &std::path::Path,
    all: &[MeasureResults],
    other: &[String],
) -> Result<()> {
    let mut text = "measure,subject,redirect,round,cost,units,cpu_ns,wall_ns\n".to_owned();
    all.iter().for_each(|results| text.push_str(&results.rows()));
    other.iter().for_each(|row| text.push_str(&format!("{row}\n")));
    Ok(std::fs::write(path, text)?)
}
