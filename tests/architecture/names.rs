//! No type name stands for two things, so that a search, a backtrace and a `Debug` print say which
//! one is meant.

use std::collections::BTreeMap;

use crate::sources::Sources;

/// Names that may be defined more than once, each with the reason.
const EXCEPTIONS: [(&str, &str); 2] = [
    ("MutexGuard", "src/sync.rs: the standard library's and loom's, of which one is compiled"),
    ("ArcSwap", "src/sync.rs: stands in for the crate's under loom"),
];

#[test]
fn no_type_name_is_defined_twice() {
    let program = Sources::of_crate("src/bin/lvs/main.rs");
    let found = repeated(&[("src", Sources::of_crate("src/lib.rs")), ("src/bin/lvs", program)]);
    let found: Vec<_> = found
        .into_iter()
        .filter(|(name, _)| !EXCEPTIONS.iter().any(|(it, _)| it == name))
        .collect();
    let lines = found.iter().map(|(name, places)| format!("{name}: {}", places.join(", ")));
    let text: Vec<_> = lines.collect();
    assert!(text.is_empty(), "defined more than once:\n{}", text.join("\n"));
}

/// The names that occur twice in crates, of which each is given with its folder.
fn repeated(crates: &[(&str, Sources)]) -> BTreeMap<String, Vec<String>> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (folder, sources) in crates {
        for module in sources.modules.values() {
            for (name, line) in &module.types {
                let place = format!("{folder}/{}:{line}", module.file);
                places.entry(name.clone()).or_default().push(place);
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    places
}

#[test]
fn private_types_and_those_of_unit_tests_count_and_associated_types_do_not() {
    let text = "struct Entry; fn f() { enum Entry {} } mod tests { type Entry = u8; }
        impl Iterator for Entry { type Item = u8; } trait Has { type Item; }";
    let texts = BTreeMap::from([("lib.rs".to_owned(), text.to_owned())]);
    let found = repeated(&[("src", Sources::parse("lib.rs", &texts))]);
    let lines = ["src/lib.rs:1", "src/lib.rs:1", "src/lib.rs:1"].map(str::to_owned);
    assert_eq!(found, BTreeMap::from([("Entry".to_owned(), lines.to_vec())]));
}
