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

/// What HAProxy, nginx, Envoy and others call the rule that a scheduler here is, without `_` and `-`.
const FOREIGN_NAMES: &[(&str, &str)] = &[
    ("consistenthash", "ring"),
    ("ewma", "peak_ewma"),
    ("fastest", "peak_ewma"),
    ("iphash", "sh"),
    ("ketama", "ring"),
    ("leastconn", "wlc"),
    ("leastconnection", "wlc"),
    ("leastconnections", "wlc"),
    ("leastrequest", "p2c"),
    ("leasttime", "peak_ewma"),
    ("poweroftwo", "p2c"),
    ("poweroftwochoices", "p2c"),
    ("randomtwo", "p2c"),
    ("ringhash", "ring"),
    ("roundrobin", "rr"),
    ("smoothroundrobin", "swrr"),
    ("source", "sh"),
    ("sourcehash", "sh"),
    ("sourceiphash", "sh"),
    ("staticrr", "wrr"),
    ("weightedleastconn", "wlc"),
    ("weightedleastconnections", "wlc"),
    ("weightedrandom", "random"),
    ("weightedroundrobin", "wrr"),
];

/// Returns the known scheduler that the name of another program's rule stands for, or else the most
/// similar name.
pub(super) fn suggest_scheduler<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let mut bare = name.to_ascii_lowercase();
    bare.retain(|letter| !matches!(letter, '_' | '-'));
    let known: Vec<&str> = known.collect();
    let translation = FOREIGN_NAMES.iter().find(|(foreign, _)| *foreign == bare);
    let own = translation.and_then(|(_, own)| known.iter().copied().find(|known| known == own));
    own.or_else(|| suggest(name, known.into_iter()))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs_are_translated() {
        let suggested =
            |name: &str| suggest_scheduler(name, ["p2c", "rr", "sh", "wlc"].into_iter());
        for name in ["roundrobin", "round_robin", "round-robin", "ROUND_ROBIN", "rrr"] {
            assert_eq!(suggested(name), Some("rr"), "{name}");
        }
        assert_eq!(["leastconn", "least_conn"].map(suggested), [Some("wlc"); 2]);
        assert_eq!(["source", "ip_hash"].map(suggested), [Some("sh"); 2]);
        assert_eq!(suggested("least_request"), Some("p2c"));
        assert_eq!(suggested("ring_hash"), None, "this registry has no ring");
    }

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
