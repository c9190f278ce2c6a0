//! What somebody meant who wrote a name that there is not.

/// The known name that a slip of the hand would have turned into this one.
pub(crate) fn suggest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, known) = known.map(|known| (edit_distance(name, known), known)).min()?;
    (distance <= (name.len() / 3).max(1)).then_some(known)
}

/// How many characters must be put in, taken out, changed or swapped with their neighbour to make
/// one name of the other; capitals are no difference.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().map(|c| c.to_ascii_lowercase()).collect();
    let (mut before, mut last, mut row) = (vec![0; b.len() + 1], vec![0; b.len() + 1], Vec::new());
    row.extend(0..=b.len());
    let mut previous = None;
    for (i, x) in a.bytes().map(|c| c.to_ascii_lowercase()).enumerate() {
        (before, last, row) = (last, row, before);
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let changed = last[j] + usize::from(x != y);
            row[j + 1] = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if j > 0 && previous == Some(y) && b[j - 1] == x {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        previous = Some(x);
    }
    row[b.len()]
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_slips_of_the_hand() {
        assert_eq!(edit_distance("wlc", "wlc"), 0);
        assert_eq!(edit_distance("WLC", "wlc"), 0);
        assert_eq!(edit_distance("wcl", "wlc"), 1, "swapped");
        assert_eq!(edit_distance("wl", "wlc"), 1, "left out");
        assert_eq!(edit_distance("wllc", "wlc"), 1, "put in");
        assert_eq!(edit_distance("wlx", "wlc"), 1, "changed");
        assert_eq!(edit_distance("", "wlc"), 3);
        assert_eq!(edit_distance("wlc", ""), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
