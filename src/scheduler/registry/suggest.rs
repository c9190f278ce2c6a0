//! Suggestions for misspelled names.

/// Returns the known name that is most similar to `name`, if it is similar enough to be a slip.
///
/// Upper and lower case are equal. A third of the letters may be inserted, removed,
/// replaced or swapped with a neighbour, one at least.
pub(crate) fn suggest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let distance = |known: &str| strsim::osa_distance(&name, &known.to_ascii_lowercase());
    let (distance, closest) = known.map(|known| (distance(known), known)).min()?;
    (distance <= (name.len() / 3).max(1)).then_some(closest)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_answered_with_the_closest_name() {
        let names = ["wlc", "wrr", "priority"];
        let suggested = |name: &str| suggest(name, names.into_iter());
        for slip in ["wlc", "WLC", "wcl", "wl", "wllc", "wlx"] {
            assert_eq!(suggested(slip), Some("wlc"), "{slip}");
        }
        assert_eq!(suggested("pirotity"), Some("priority"));
        assert_eq!(suggested(""), None);
        assert_eq!(suggested("least-response-time"), None);
    }
}
