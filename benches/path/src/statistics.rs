//! Medians, and how sure they are.

/// Median, least and most of figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Returns the median with the least and the most.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values = sorted(values);
        Some(Self { median: median(&values)?, least: *values.first()?, most: *values.last()? })
    }

    /// Returns the median with the narrowest interval that the true median is in with a certainty of 95 %,
    /// by the ranks of the figures: the least and the most of up to eight.
    pub(crate) fn of_median(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values = sorted(values);
        let outside = ranks_outside(values.len());
        let (least, most) = (values.get(outside)?, values.get(values.len() - 1 - outside)?);
        Some(Self { median: median(&values)?, least: *least, most: *most })
    }

    pub(crate) fn text(self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
    }
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> Option<f64> {
    let (below, above) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some((sorted[below] + sorted[above]) / 2.0)
}

/// Returns how many figures at each end may be left out: the true median is among those with a chance of less
/// than 2.5 %, as that many throws of a coin.
fn ranks_outside(count: usize) -> usize {
    let mut chance = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut sum = chance;
    let mut outside = 0;
    while outside + 1 < count / 2 {
        chance *= (count - outside) as f64 / (outside + 1) as f64;
        sum += chance;
        if sum > 0.025 {
            break;
        }
        outside += 1;
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_between_ranks_of_a_coin() {
        // The table of the sign test: the chance of fewer heads is below 2.5 %.
        for (count, outside) in [(1, 0), (5, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7)]
        {
            assert_eq!(ranks_outside(count), outside, "{count}");
        }
    }

    #[test]
    fn a_median_of_an_even_number_is_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).expect("figures");
        assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 4.0));
        assert!(Spread::of([]).is_none());
    }
}
