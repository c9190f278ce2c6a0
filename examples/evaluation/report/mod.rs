//! What came of it: a page to look at, tables for programs, and some lines for the terminal.

mod chart;
mod claims;
mod figures;
mod page;
mod tables;

use std::path::Path;
use std::time::Duration;

use self::claims::claims;
use crate::measure::Step;
use crate::plan::Plan;
use crate::process::Error;
use crate::redundancy::Redundancy;
use crate::schedulers::Ruled;

/// All that was measured.
pub(crate) struct Results {
    pub(crate) plan: Plan,
    pub(crate) performance: Vec<Step>,
    pub(crate) schedulers: Vec<Ruled>,
    pub(crate) ceiling: Vec<Step>,
    pub(crate) redundancy: Redundancy,
    pub(crate) took: Duration,
}

/// Writes the report into a folder.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<(), Error> {
    std::fs::write(folder.join("report.html"), page::page(results)?)?;
    tables::write(results, folder)
}

/// What the terminal is told.
pub(crate) fn summary(results: &Results) -> String {
    let mut text = String::new();
    for claim in claims(results) {
        let mark = if claim.holds { "ok  " } else { "NOT " };
        text += &format!("{mark}{}\n", claim.text);
    }
    if let Some(left_out) = results.redundancy.left_out {
        text += &format!("{left_out}\n");
    }
    text
}
