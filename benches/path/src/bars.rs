//! The bars that the packet engine is to meet.

use std::fmt::Write as _;

use crate::report::MeasureResults;
use crate::spec::{Measure, PacketMethod, Redirect, Subject};
use crate::statistics::Spread;

/// What a bar is about.
#[derive(Clone, Copy, Debug)]
enum BarKind {
    /// The ratio to plain forwarding is at most this.
    ToForwarding(f64),
    /// What is added to the direct path is at most this part of what HAProxy adds.
    AddedToDirect(f64),
    /// The ratio to plain forwarding is in the interval of the A/A pair.
    SameAsForwarding,
}

/// A bar for the subjects of the packet engine with a method and a redirect, by whether the scheduler is asked.
#[derive(Clone, Copy, Debug)]
struct CostBar {
    measure: Measure,
    method: PacketMethod,
    redirect: Redirect,
    asks_scheduler: Option<bool>,
    kind: BarKind,
}

const fn bar(
    measure: Measure,
    redirect: Redirect,
    asks_scheduler: Option<bool>,
    kind: BarKind,
) -> CostBar {
    CostBar { measure, method: PacketMethod::Nat, redirect, asks_scheduler, kind }
}

const fn direct_bar(measure: Measure, redirect: Redirect, kind: BarKind) -> CostBar {
    CostBar { measure, method: PacketMethod::DirectRouting, redirect, asks_scheduler: None, kind }
}

const BARS: &[CostBar] = &[
    bar(Measure::Request, Redirect::Neighbour, None, BarKind::ToForwarding(1.05)),
    bar(Measure::Connection, Redirect::Neighbour, Some(false), BarKind::ToForwarding(1.10)),
    bar(Measure::Connection, Redirect::Neighbour, Some(true), BarKind::ToForwarding(1.20)),
    bar(Measure::Request, Redirect::Neighbour, None, BarKind::AddedToDirect(0.20)),
    bar(Measure::Request, Redirect::Peer, None, BarKind::AddedToDirect(0.15)),
    bar(Measure::Connection, Redirect::Neighbour, None, BarKind::AddedToDirect(0.20)),
    bar(Measure::Connection, Redirect::Peer, None, BarKind::AddedToDirect(0.20)),
    bar(Measure::Bulk, Redirect::Neighbour, None, BarKind::SameAsForwarding),
    bar(Measure::Bulk, Redirect::Peer, None, BarKind::SameAsForwarding),
    direct_bar(Measure::Request, Redirect::Neighbour, BarKind::AddedToDirect(0.06)),
    direct_bar(Measure::Request, Redirect::Peer, BarKind::AddedToDirect(0.06)),
];

/// An A/A pair whose ratio may be farther from 1 than this tells nothing about equality.
const MAX_NOISE: f64 = 1.10;

/// Whether a bar is met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Met,
    Missed,
    /// The bar is within the interval of the A/A pair, or that of the figure itself.
    Unknown,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "**not met**",
            Self::Unknown => "cannot be told",
        }
    }

    /// Compares a figure with a bar; it may be as little or as much in truth.
    fn at_most(bar: f64, least: f64, most: f64) -> Self {
        match () {
            () if most <= bar => Self::Met,
            () if least > bar => Self::Missed,
            () => Self::Unknown,
        }
    }

    /// Compares a ratio with that of the A/A pair, which was as far from 1 as this, up or down.
    fn same(ratio: Spread, noise: f64) -> Self {
        let is_inside = (1.0 / noise..=noise).contains(&ratio.median);
        match is_inside {
            _ if noise > MAX_NOISE => Self::Unknown,
            true => Self::Met,
            // As far as the ratio's own interval.
            false if (ratio.least..=ratio.most).contains(&1.0) => Self::Unknown,
            false => Self::Missed,
        }
    }
}

/// Returns a table of the bars.
pub(crate) fn table(all: &[MeasureResults]) -> String {
    let mut text =
        "### Bars\n\n| | measured | the A/A pair | bar | |\n|---|---|---|---|---|\n".to_owned();
    for bar in BARS {
        let Some(results) = all.iter().find(|results| results.measure == bar.measure) else {
            continue;
        };
        for &(subject, _) in &results.columns {
            let is_meant = subject.redirect() == Some(bar.redirect)
                && subject.method() == bar.method
                && subject
                    .asks_scheduler()
                    .is_some_and(|asks| bar.asks_scheduler.is_none_or(|it| it == asks));
            if is_meant {
                text.push_str(&row(bar, results, subject).unwrap_or_default());
            }
        }
    }
    text
}

/// Returns the row of a bar; `None` if what it compares with was not measured.
fn row(bar: &CostBar, results: &MeasureResults, subject: Subject) -> Option<String> {
    let (forwarding, again) = (Subject::Forwarding, Subject::ForwardingAa);
    let is_added = matches!(bar.kind, BarKind::AddedToDirect(_));
    let (measured, noise) = match is_added {
        true => {
            (results.added_part(subject, Subject::Direct)?, results.added_part(again, forwarding)?)
        }
        false => (results.ratio(subject, forwarding)?, results.ratio(again, forwarding)?),
    };
    // What is equal may differ so much, up or down.
    let factor = noise.most.max(1.0 / noise.least).max(1.0);
    let term = noise.most.abs().max(noise.least.abs());
    let (limit, verdict) = match bar.kind {
        BarKind::ToForwarding(limit) => {
            let least = measured.least.min(measured.median / factor);
            let most = measured.most.max(measured.median * factor);
            (format!("<= {limit:.2}"), Verdict::at_most(limit, least, most))
        }
        BarKind::AddedToDirect(limit) => {
            let least = measured.least.min(measured.median - term);
            let most = measured.most.max(measured.median + term);
            (format!("<= {limit:.2}"), Verdict::at_most(limit, least, most))
        }
        BarKind::SameAsForwarding => {
            ("as the A/A pair".to_owned(), Verdict::same(measured, factor))
        }
    };
    let what =
        if is_added { "added over the direct path, to HAProxy's" } else { "to plain forwarding" };
    let (cost, _) = bar.measure.units();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "| {} by {}, {cost}, {what} | {} | {} | {limit} | {} |",
        subject.name(),
        bar.redirect.name(),
        measured.text(2),
        noise.text(2),
        verdict.name(),
    );
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_told_only_outside_of_the_noise() {
        assert_eq!(Verdict::at_most(1.05, 0.9, 1.05), Verdict::Met);
        assert_eq!(Verdict::at_most(1.05, 1.06, 1.3), Verdict::Missed);
        assert_eq!(Verdict::at_most(1.05, 1.0, 1.06), Verdict::Unknown);
    }

    #[test]
    fn equality_needs_a_pair_that_is_quiet() {
        let ratio = |least, median, most| Spread { median, least, most };
        assert_eq!(Verdict::same(ratio(0.9, 1.02, 1.2), 1.05), Verdict::Met);
        assert_eq!(Verdict::same(ratio(0.9, 1.02, 1.2), 1.3), Verdict::Unknown);
        assert_eq!(Verdict::same(ratio(0.9, 1.08, 1.2), 1.05), Verdict::Unknown);
        assert_eq!(Verdict::same(ratio(1.1, 1.2, 1.3), 1.05), Verdict::Missed);
    }
}
