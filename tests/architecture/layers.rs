//! Imports go one way: the table of layers that the crate's documentation shows, compared with the
//! sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::resolve::Target;
use crate::sources::{ModulePath, Sources};

/// The table that `lib.rs` has in its documentation.
const TABLE: &str = include_str!("../../docs/layers.md");

/// What a part must not mention at all, beside its imports.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("backend", &["tokio", "Instant::now", "SystemTime::now"]),
    ("scheduler", &["tokio", "Instant::now", "SystemTime::now"]),
    ("balancer", &["tokio", "Instant::now", "SystemTime::now"]),
];

type Layers = BTreeMap<String, BTreeSet<String>>;

/// Each part with the parts that it may import. `all of these` are those in the rows above.
fn layers(table: &str) -> Layers {
    let mut layers = Layers::new();
    for row in table.lines().filter(|row| row.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let part = cells[1].trim_matches('`').to_owned();
        let allowed = match cells[2] {
            "all of these" => layers.keys().cloned().collect(),
            cell => {
                let names = cell.split(',').map(|name| name.trim().trim_matches('`').to_owned());
                names.filter(|name| !name.is_empty()).collect()
            }
        };
        layers.insert(part, allowed);
    }
    layers
}

#[test]
fn imports_go_one_way() {
    let sources = Sources::of_crate("src/lib.rs");
    assert!(sources.modules.len() > 20, "the sources are where they are looked for");
    let faults = faults(&sources, &layers(TABLE));
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_part_has_a_row_and_every_row_a_part() {
    let sources = Sources::of_crate("src/lib.rs");
    // What stands in the root's own file, such as the glossary, is no part.
    let own = sources.modules.iter().filter(|(_, module)| module.file != "lib.rs");
    let parts: BTreeSet<_> = own.filter_map(|(path, _)| path.first()).collect();
    let layers = layers(TABLE);
    assert_eq!(parts, layers.keys().collect::<BTreeSet<_>>());
    // Those that may be imported are rows of their own, and none of them imports upwards.
    for (part, allowed) in &layers {
        for other in allowed {
            let back = layers.get(other).unwrap_or_else(|| panic!("{part}: no part {other}"));
            assert!(!back.contains(part), "{part} and {other} may import each other");
        }
    }
}

#[test]
fn clocks_runtimes_and_unsafe_are_where_they_may_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = Sources::of_crate("src/lib.rs");
    let files: BTreeSet<_> = sources.modules.values().map(|module| &module.file).collect();
    let mut faults = Vec::new();
    for file in files {
        let text = fs::read_to_string(root.join(file)).expect("a source is readable text");
        faults.extend(forbidden_words(file, &text));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn faults(sources: &Sources, layers: &Layers) -> Vec<String> {
    let mut faults = Vec::new();
    for import in sources.imports() {
        let to = match &import.target {
            Target::Module(path) | Target::Item(path) => part(path),
        };
        let from = part(&import.from);
        // The crate's root ties everything together; only its parts are judged.
        let (Some(from), Some(to)) = (from, to) else { continue };
        if from != to && !layers.get(from).is_some_and(|allowed| allowed.contains(to)) {
            let file = &sources.modules[&import.from].file;
            let (line, path) = (import.line, &import.path);
            faults
                .push(format!("src/{file}:{line}: `{from}` imports `{path}`, which is of `{to}`"));
        }
    }
    faults
}

fn part(path: &ModulePath) -> Option<&String> {
    path.first()
}

/// Words that a part must do without, and `unsafe` anywhere but in `sys`.
fn forbidden_words(file: &str, text: &str) -> Vec<String> {
    let part = file.split(['/', '.']).next().unwrap_or(file);
    let lines: Vec<&str> = text.lines().map(without_comment).collect();
    let words = FORBIDDEN.iter().find(|(layer, _)| *layer == part).map_or(&[][..], |(_, w)| w);
    let mut faults = Vec::new();
    for (i, line) in ahead_of_tests(file, &lines).iter().enumerate() {
        let found = words.iter().filter(|word| line.contains(**word));
        faults
            .extend(found.map(|word| format!("src/{file}:{}: `{part}` mentions `{word}`", i + 1)));
    }
    for (i, line) in lines.iter().enumerate() {
        if part != "sys" && has_word(line, "unsafe") {
            faults.push(format!("src/{file}:{}: `unsafe` outside src/sys", i + 1));
        }
    }
    faults
}

fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// The lines ahead of the unit tests, which may read a clock to have an instant at all.
fn ahead_of_tests<'a>(file: &str, lines: &'a [&'a str]) -> &'a [&'a str] {
    if file.ends_with("/tests.rs") || file.contains("/tests/") {
        return &[];
    }
    let opens_tests = |pair: &[&str]| {
        let (attribute, module) = (pair[0].trim_start(), pair[1].trim_start());
        attribute.starts_with("#[cfg(")
            && has_word(attribute, "test")
            && has_word(module, "mod")
            && module.ends_with('{')
    };
    let end = lines.windows(2).position(opens_tests).unwrap_or(lines.len());
    &lines[..end]
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|part| part == word)
}

fn judge(files: &[(&str, &str)]) -> Vec<String> {
    let texts = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
    let table = "| `a` | | lowest |\n| `b` | `a` | middle |\n| `c` | all of these | highest |";
    faults(&Sources::parse("lib.rs", &texts.collect()), &layers(table))
}

#[test]
fn an_import_upwards_is_named_by_file_line_and_path() {
    let lib = ("lib.rs", "mod a; mod b; mod c; pub use self::c::C;");
    let c = ("c.rs", "use crate::{a::A, b::B}; pub struct C(A, B);");
    let b = ("b.rs", "use crate::a::A;\npub struct B(A);");
    assert_eq!(judge(&[lib, ("a.rs", "pub struct A;"), b, c]), [""; 0]);
    assert_eq!(
        judge(&[lib, ("a.rs", "//! [`C`](crate::C)\npub struct A(crate::C);"), b, c]),
        ["src/a.rs:2: `a` imports `crate::C`, which is of `c`"],
        "what the root lifts out of a part is of that part"
    );
    let tests = "pub struct A;\n#[cfg(test)]\nmod tests { use crate::c::C; }";
    assert_eq!(judge(&[lib, ("a.rs", tests), b, c]), [""; 0], "unit tests may reach up");
    let in_macro = "pub struct A; fn f() { println!(\"{:?}\", crate::b::B); }";
    assert_eq!(judge(&[lib, ("a.rs", in_macro), b, c]).len(), 1);
}

#[test]
fn forbidden_words_are_found_outside_comments_and_tests() {
    let text = "use tokio::time;\nlet t = Instant::now();\nunsafe { f() } // tokio\n";
    assert_eq!(
        forbidden_words("backend/bad.rs", text),
        [
            "src/backend/bad.rs:1: `backend` mentions `tokio`",
            "src/backend/bad.rs:2: `backend` mentions `Instant::now`",
            "src/backend/bad.rs:3: `unsafe` outside src/sys",
        ]
    );
    assert_eq!(forbidden_words("sys/good.rs", text), [""; 0]);
    let tests = "#[cfg(all(test, not(lvs_loom)))]\nmod tests {\n    Instant::now();\n}\n";
    assert_eq!(forbidden_words("backend/good.rs", tests), [""; 0]);
    assert_eq!(forbidden_words("backend/good/tests.rs", "Instant::now();"), [""; 0]);
}
