//! Desired tables, reconciled with the kernel's.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lvs::ipvs::{IpvsDestination, IpvsForwarding, IpvsService, IpvsTable};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::{client, ipvsadm, saved, tcp};
use crate::guest;
use crate::random_tables::{keys, tables};

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_thousand_desired_tables_leave_nothing_over_and_touch_nothing_foreign() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    for line in [
        "-A -t 10.9.9.9:80 -s wrr -p 77",
        "-a -t 10.9.9.9:80 -r 10.9.9.1:80 -m -w 3",
        "-A -u [2001:db8::9]:53 -s lc -o",
    ] {
        ipvsadm(line);
    }
    let foreign = ipvs.table(|_| true).unwrap();
    let foreign_lines = saved();
    let owned: BTreeSet<_> = keys().into_iter().collect();
    let mut runner = TestRunner::deterministic();
    let count = if guest::is_emulated() { 200 } else { 1000 };
    let mut changes = 0;
    for number in 0..count {
        let desired = tables().new_tree(&mut runner).expect("a table").current();
        let report = ipvs.reconcile(&desired, &owned).unwrap();
        assert!(report.failed.is_empty(), "table {number}: {:?}", report.failed);
        changes += report.applied.len();
        let found = ipvs.table(|_| true).unwrap();
        let mut expected = desired.clone();
        for service in foreign.services() {
            expected.insert(service.clone(), foreign.destinations(&service.key).cloned());
        }
        assert_eq!(found, expected, "table {number}");
        let again = ipvs.reconcile(&desired, &owned).unwrap();
        assert!(again.applied.is_empty(), "table {number}: {:?}", again.applied);
    }
    assert!(changes > 5 * count, "{changes}");
    ipvs.reconcile(&IpvsTable::new(), &owned).unwrap();
    assert_eq!(saved(), foreign_lines);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn what_is_refused_keeps_nothing_else_from_being_done() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    let server = |address: &str| {
        IpvsDestination::new(address.parse().expect("an address"), IpvsForwarding::Nat)
    };
    let mut desired = IpvsTable::new();
    let unknown = IpvsService::new(tcp("10.0.0.1:80"), "nonesuch");
    desired.insert(unknown, [server("10.0.1.1:80"), server("10.0.1.2:80")]);
    let multicast = server("224.0.0.5:80");
    desired.insert(IpvsService::new(tcp("10.0.0.1:81"), "rr"), [multicast, server("10.0.1.3:80")]);
    let report = ipvs.reconcile(&desired, &BTreeSet::new()).unwrap();
    let mut texts = String::new();
    for error in &report.failed {
        writeln!(texts, "{error}").unwrap();
    }
    assert_eq!(report.failed.len(), 2, "{texts}");
    assert!(texts.contains("modprobe ip_vs_nonesuch"), "{texts}");
    assert!(texts.contains("224.0.0.5:80 to service TCP 10.0.0.1:81"), "{texts}");
    assert_eq!(saved(), ["-A -t 10.0.0.1:81 -s rr", "-a -t 10.0.0.1:81 -r 10.0.1.3:80 -m -w 1"]);
}

/// Another program changes a service while it is reconciled: here, what it changed is changed back.
#[test]
#[ignore = "runs in a kernel of its own"]
fn what_others_changed_is_changed_back() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    let key = tcp("10.0.0.1:80");
    let server = IpvsDestination::new("10.0.1.1:80".parse().unwrap(), IpvsForwarding::Nat);
    let mut desired = IpvsTable::new();
    desired.insert(IpvsService::new(key, "rr"), [server]);
    let owned = BTreeSet::from([key]);
    ipvs.reconcile(&desired, &owned).unwrap();
    let lines = saved();
    for change in [
        "-E -t 10.0.0.1:80 -s sh -p",
        "-e -t 10.0.0.1:80 -r 10.0.1.1:80 -m -w 0",
        "-a -t 10.0.0.1:80 -r 10.0.1.2:80 -g",
        "-d -t 10.0.0.1:80 -r 10.0.1.1:80",
        "-D -t 10.0.0.1:80",
        "-C",
    ] {
        ipvsadm(change);
        assert_ne!(saved(), lines);
        let report = ipvs.reconcile(&desired, &owned).unwrap();
        let most = if change.len() < 20 { 2 } else { 1 };
        assert!(report.applied.len() <= most && report.failed.is_empty(), "{change}: {report:?}");
        assert_eq!(saved(), lines, "{change}");
    }
}
