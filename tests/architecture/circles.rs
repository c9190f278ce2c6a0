//! No files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::package::is_unpacked_package;
use crate::sources::Sources;

/// The crates of this repository that have more than one file.
const CRATES: [&str; 7] = [
    "src/lib.rs",
    "src/bin/lvs/main.rs",
    "benches/forward/src/main.rs",
    "benches/path/src/main.rs",
    "benches/peers/src/main.rs",
    "examples/evaluation/main.rs",
    "tests/architecture/main.rs",
];

#[test]
fn no_files_import_each_other_in_a_circle() {
    // The package has no packages of its own in it.
    let is_left_out = |root: &&str| root.starts_with("benches/") && is_unpacked_package();
    for root in CRATES.iter().filter(|root| !is_left_out(root)) {
        let sources = Sources::of_crate(root);
        let found = circles(&sources);
        assert!(found.is_empty(), "{root}:\n{}", found.join("\n"));
    }
}

type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// Each circle as text: its files, and what each takes from the others.
fn circles(sources: &Sources) -> Vec<String> {
    let graph = sources.file_graph();
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|file| (file, reachable(&graph, file))).collect();
    let mut done = BTreeSet::new();
    let mut circles = Vec::new();
    for (file, reaches) in &reached {
        if !reaches.contains(*file) || done.contains(*file) {
            continue;
        }
        let is_back = |other: &&&String| reached.get(**other).is_some_and(|it| it.contains(*file));
        let members: BTreeSet<&String> = reaches.iter().filter(is_back).copied().collect();
        let mut text = format!("a circle of {} files", members.len());
        for member in &members {
            for (to, example) in graph[*member].iter().filter(|(to, _)| members.contains(to)) {
                let _ = write!(text, "\n  {member} -> {to} ({example})");
            }
        }
        done.extend(members);
        circles.push(text);
    }
    circles
}

fn reachable<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut ahead: Vec<&str> = vec![from];
    while let Some(file) = ahead.pop() {
        for next in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next) {
                ahead.push(next);
            }
        }
    }
    reached
}

fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let texts = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
    circles(&Sources::parse("lib.rs", &texts.collect()))
}

#[test]
fn a_circle_is_named_with_what_closes_it() {
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "pub struct B; fn f(_: &super::a::A) {}"),
    ]);
    assert_eq!(
        found,
        ["a circle of 2 files\n  a.rs -> b.rs (line 1: crate::b::B)\n  \
          b.rs -> a.rs (line 1: super::a::A)"]
    );
}

#[test]
fn a_re_export_leads_to_the_file_that_defines_the_name() {
    let hidden = [
        ("lib.rs", "mod part;"),
        ("part/mod.rs", "mod a; mod b; pub use self::{a::A, b::B as Renamed};"),
        ("part/a.rs", "use super::Renamed; pub struct A;"),
        ("part/b.rs", "use crate::part::*; pub struct B(A);"),
    ];
    // The glob takes what `mod.rs` defines itself, which is nothing, and `a::A` by its name.
    assert_eq!(circles_of(&hidden)[0].lines().next(), Some("a circle of 2 files"));
    let named = [hidden[0], hidden[1], hidden[2], ("part/b.rs", "pub struct B(super::A);")];
    assert!(circles_of(&named)[0].starts_with("a circle of 2 files\n  part/a.rs"));
    let one_way = [hidden[0], hidden[1], hidden[2], ("part/b.rs", "pub struct B;")];
    assert_eq!(circles_of(&one_way), [""; 0]);
}

#[test]
fn a_path_through_an_imported_module_counts_and_the_module_alone_does_not() {
    let files = |use_of_a: &'static str| {
        [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b; pub fn f() { b::g(); }"),
            ("b.rs", use_of_a),
        ]
    };
    assert_eq!(circles_of(&files("use super::a; pub fn g() {}")), [""; 0]);
    assert_eq!(circles_of(&files("use super::a; pub fn g() { a::f(); }")).len(), 1);
    assert_eq!(circles_of(&files("use super::a; pub fn g() { println!(\"\", a::f()); }")).len(), 1);
}

#[test]
fn unit_tests_and_module_lines_and_docs_are_no_imports() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod b; /// [`C`](self::b::C)\npub struct A;"),
        (
            "a/b.rs",
            "use super::A; pub struct C(A);\n#[cfg(test)] mod tests { use super::super::*; }",
        ),
    ];
    assert_eq!(circles_of(&files), [""; 0]);
}
