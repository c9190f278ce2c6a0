//! Public types may grow: every public enum, and every public struct with public fields, is
//! `#[non_exhaustive]`, or stands in a table with the reason why it is not.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::Sources;

/// Types that others match whole, or make of their fields, each with the reason.
const EXCEPTIONS: [(&str, &str); 13] = [
    ("AgentOverride", "made by a user's own check, field by field over its default"),
    ("ChecksumCoverage", "an option of one bit, of peers that differ in it"),
    ("IpHeaderInfo", "made by a program that receives packets itself: the fields of RFC 9568"),
    ("OutgoingAdvert", "made by a program that sends packets itself: the fields of RFC 9568"),
    ("OutlierSample", "made by a program that drives an `Ejector` itself"),
    ("ProxyProtocolVersion", "the versions of the PROXY protocol"),
    ("ReceivedAdvert", "made by a program that drives an `Election` itself"),
    ("SavedTemplate", "made by a program that stores templates in a form of its own"),
    ("StreakReport", "made by a program that drives an `Ejector` itself"),
    ("Termination", "the two letters of HAProxy's code"),
    ("VrrpState", "the states of RFC 9568, and keepalived's fault"),
    ("VrrpTransition", "a change from one state to another, with the reason"),
    ("VrrpVersion", "the versions of the protocol"),
];

#[test]
fn public_types_may_grow() {
    let closed = closed_types(&Sources::of_crate("src/lib.rs"));
    let listed: BTreeSet<_> = EXCEPTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let unlisted: Vec<_> = closed.iter().filter(|(name, _)| !listed.contains(*name)).collect();
    assert!(unlisted.is_empty(), "not `#[non_exhaustive]`, and no reason is given: {unlisted:#?}");
    let names: BTreeSet<_> = closed.into_keys().collect();
    let stale: Vec<_> = listed.difference(&names).collect();
    assert!(stale.is_empty(), "listed, and not there or `#[non_exhaustive]`: {stale:?}");
}

/// Returns the types that are closed, each with its place.
fn closed_types(sources: &Sources) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for module in sources.modules.values().filter(|module| !module.is_test) {
        for open in module.open_types.iter().filter(|open| !open.is_non_exhaustive) {
            found.insert(open.name.clone(), format!("src/{}:{}", module.file, open.line));
        }
    }
    found
}

#[test]
fn newtypes_hidden_fields_and_private_types_need_no_attribute() {
    let text = "pub enum A { X } #[non_exhaustive] pub enum B { X } enum C { X }
        pub struct D { pub x: u8 } #[non_exhaustive] pub struct E { pub x: u8 }
        pub struct F { x: u8, pub(crate) y: u8 } pub struct G(pub u8); pub struct H(pub u8, pub u8);
        pub(crate) struct I { pub x: u8 } #[cfg(test)] mod tests { pub enum J { X } }";
    let texts = BTreeMap::from([("lib.rs".to_owned(), text.to_owned())]);
    let found: Vec<_> = closed_types(&Sources::parse("lib.rs", &texts)).into_keys().collect();
    assert_eq!(found, ["A", "D", "H"]);
}
