//! The report: an HTML page, CSV files, some charts as SVG files, and a summary for the terminal.

mod chart;
mod claims;
mod figures;
mod page;
mod results;
mod tables;

use std::path::Path;

use self::claims::claims;
pub(crate) use self::results::Results;
use crate::process::Error;

/// Writes the report into a folder.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<(), Error> {
    std::fs::write(folder.join("report.html"), page::page(results)?)?;
    for (name, svg) in page::charts(results)? {
        std::fs::write(folder.join(name), svg)?;
    }
    tables::write(results, folder)
}

/// Returns the claims as lines for the terminal.
pub(crate) fn summary(results: &Results) -> String {
    let mut text = String::new();
    for claim in claims(results) {
        let mark = if claim.holds { "ok   " } else { "FAIL " };
        text += &format!("{mark}{}\n", claim.text);
    }
    for left_out in &results.plan.left_out {
        text += &format!("{left_out}\n");
    }
    text
}
