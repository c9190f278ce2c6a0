//! The tables, in Markdown.

use super::ROUNDS;
use super::row::Measured;

/// Prints what each path costs, and the difference to a router.
pub(super) fn print_tables<const N: usize>(
    heads: [&str; N],
    rows: &[(&str, [Option<Measured>; N])],
) {
    let (_, base) = rows.iter().find(|(name, _)| *name == "routed").expect("a base");
    println!("\nInstructions of the guest, median and spread of {ROUNDS} rounds:\n");
    print_table(heads, rows, |cell, _| {
        let Measured { median, spread, .. } = cell;
        format!("{} ({})", grouped(median.cast_signed()), grouped(spread.cast_signed()))
    });
    let cells = rows.iter().flat_map(|(_, cells)| cells).flatten();
    let idle = cells.map(|cell| cell.idle_permille).max().unwrap_or_default();
    println!(
        "\nThe processor was idle for {idle} of 1000 ns at most.\n\nDifference to a router:\n"
    );
    print_table(heads, rows, |cell, column| {
        let base = base[column].expect("a router carries everything").median;
        grouped(cell.median.cast_signed() - base.cast_signed())
    });
    println!();
}

fn print_table<const N: usize>(
    heads: [&str; N],
    rows: &[(&str, [Option<Measured>; N])],
    text: impl Fn(Measured, usize) -> String,
) {
    println!("| | {} |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(N));
    for (name, cells) in rows {
        let cells = cells.iter().enumerate();
        let cells = cells.map(|(n, cell)| cell.map_or_else(|| "-".to_owned(), |it| text(it, n)));
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

/// Writes a number with a space between its thousands.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
