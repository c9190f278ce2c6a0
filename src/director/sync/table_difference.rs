//! Notices when two directors decide by different tables for longer than a change takes to reach both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::balancer::Fingerprint;

/// How long the tables of two directors may differ before that is reported: a change by an operator or by discovery
/// reaches both within this time.
const MAX_DIFFERENCE: Duration = Duration::from_secs(10);

/// The services whose tables differ, each with the time since when.
#[derive(Debug, Default)]
pub(super) struct TableDifferences(BTreeMap<String, TableDifference>);

#[derive(Debug)]
struct TableDifference {
    since: Instant,
    is_reported: bool,
}

/// A service whose tables differ for too long, or are the same again after that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TableReport {
    pub(super) service: String,
    /// The fingerprints of this director and of the other one; `None` if the tables are the same again.
    pub(super) fingerprints: Option<(Fingerprint, Fingerprint)>,
}

impl TableDifferences {
    /// Compares the fingerprints of the services that both have, and returns what is to be reported.
    pub(super) fn update(
        &mut self,
        now: Instant,
        pairs: impl IntoIterator<Item = (String, Fingerprint, Fingerprint)>,
    ) -> Vec<TableReport> {
        let mut reports = Vec::new();
        let mut before = std::mem::take(&mut self.0);
        for (service, ours, theirs) in pairs {
            let known = before.remove(&service);
            if ours == theirs {
                if known.is_some_and(|known| known.is_reported) {
                    reports.push(TableReport { service, fingerprints: None });
                }
                continue;
            }
            let mut difference =
                known.unwrap_or(TableDifference { since: now, is_reported: false });
            let is_due = now.saturating_duration_since(difference.since) >= MAX_DIFFERENCE;
            if is_due && !difference.is_reported {
                difference.is_reported = true;
                let fingerprints = Some((ours, theirs));
                reports.push(TableReport { service: service.clone(), fingerprints });
            }
            self.0.insert(service, difference);
        }
        reports
    }

    /// Returns the services whose tables differ for too long.
    pub(super) fn reported(&self) -> Vec<String> {
        let reported = self.0.iter().filter(|(_, difference)| difference.is_reported);
        reported.map(|(service, _)| service.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_reported_once_when_it_lasts_and_when_it_ends() {
        let [a, b]: [Fingerprint; 2] =
            ["000000000000000a", "000000000000000b"].map(|text| text.parse().expect("digits"));
        #[expect(clippy::disallowed_methods, reason = "an instant has no other origin")]
        let start = Instant::now();
        let mut differences = TableDifferences::default();
        let mut update = |seconds, ours, theirs| {
            let now = start + Duration::from_secs(seconds);
            let reports = differences.update(now, [("web".to_owned(), ours, theirs)]);
            let reported = differences.reported();
            (reports.into_iter().map(|it| it.fingerprints).collect::<Vec<_>>(), reported.len())
        };
        assert_eq!(update(0, a, a), (vec![], 0));
        assert_eq!(update(1, a, b), (vec![], 0));
        assert_eq!(update(10, a, b), (vec![], 0));
        // The change has reached both: another difference begins anew.
        assert_eq!(update(10, b, b), (vec![], 0));
        assert_eq!(update(15, b, a), (vec![], 0));
        assert_eq!(update(25, b, a), (vec![Some((b, a))], 1));
        assert_eq!(update(60, b, a), (vec![], 1));
        assert_eq!(update(61, a, a), (vec![None], 0));
        assert_eq!(update(62, a, a), (vec![], 0));
    }
}
