//! Histograms in Prometheus' text format. The recorder of the other metrics takes one value at a time;
//! these are counted already.

use std::fmt::Write;

use crate::histogram::DurationHistogram;

/// The buckets that are rendered: each doubling from 128 µs to 8.4 s.
const FIRST_BOUND: usize = 33;
const BOUNDS_PER_DOUBLING: usize = 6;
const RENDERED_BOUNDS: usize = 17;

/// The labels of a time series, and its durations.
pub(super) type HistogramSeries = (Vec<(&'static str, String)>, DurationHistogram);

/// Appends a histogram; nothing without any series.
pub(super) fn render_histogram(
    text: &mut String,
    name: &str,
    help: &str,
    series: &[HistogramSeries],
) {
    if series.is_empty() {
        return;
    }
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (labels, durations) in series {
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        let bucket = |le: &str| [labels.as_slice(), &[format!("le=\"{le}\"")]].concat().join(",");
        let buckets = durations.cumulative_buckets().skip(FIRST_BOUND).step_by(BOUNDS_PER_DOUBLING);
        for (bound, count) in buckets.take(RENDERED_BOUNDS) {
            let labels = bucket(&bound.as_secs_f64().to_string());
            let _ = writeln!(text, "{name}_bucket{{{labels}}} {count}");
        }
        let (count, sum) = (durations.count(), durations.sum().as_secs_f64());
        let _ = writeln!(text, "{name}_bucket{{{}}} {count}", bucket("+Inf"));
        let labels = labels.join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(text, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}");
    }
    text.push('\n');
}

/// Escapes a label's value.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::histogram::AtomicHistogram;

    #[test]
    fn buckets_are_cumulative_and_label_values_are_escaped() {
        let durations = AtomicHistogram::default();
        for micros in [128, 129, 20_000_000] {
            durations.record(Duration::from_micros(micros));
        }
        let series = [(vec![("service", "a\"b".to_owned())], durations.snapshot())];
        let mut text = String::new();
        render_histogram(&mut text, "x_seconds", "Help.", &series);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["# HELP x_seconds Help.", "# TYPE x_seconds histogram"]);
        assert_eq!(lines[2], r#"x_seconds_bucket{service="a\"b",le="0.000128"} 1"#);
        assert_eq!(lines[3], r#"x_seconds_bucket{service="a\"b",le="0.000256"} 2"#);
        assert_eq!(lines[18], r#"x_seconds_bucket{service="a\"b",le="8.388608"} 2"#);
        assert_eq!(lines[19], r#"x_seconds_bucket{service="a\"b",le="+Inf"} 3"#);
        assert_eq!(lines[20], r#"x_seconds_sum{service="a\"b"} 20.000257"#);
        assert_eq!(lines[21], r#"x_seconds_count{service="a\"b"} 3"#);
        let mut bare = String::new();
        render_histogram(&mut bare, "y_seconds", "Help.", &[(Vec::new(), durations.snapshot())]);
        assert!(bare.contains("y_seconds_bucket{le=\"+Inf\"} 3\ny_seconds_sum 20"), "{bare}");
        render_histogram(&mut text, "z_seconds", "Help.", &[]);
        assert!(!text.contains("z_seconds"));
    }
}
