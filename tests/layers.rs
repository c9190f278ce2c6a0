//! Imports go one way: the picture under "Layers" of the design, compared with the sources.
#![cfg(not(lvs_loom))]

use std::fs;
use std::path::{Path, PathBuf};

/// Every part of the crate, and what it may import besides itself. Extend by adding a line.
const LAYERS: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("sys", &[]),
    ("histogram", &["sync"]),
    ("backend", &["sync"]),
    ("scheduler", &["sync", "backend"]),
    ("balancer", &["sync", "backend", "scheduler"]),
    // What feeds a balancer of connections is a source, as `MakeBalance` has it.
    ("tower", &["sync", "histogram", "backend", "scheduler", "balancer", "discovery"]),
    ("forward", ABOVE_BALANCER),
    ("health", ABOVE_BALANCER),
    ("discovery", ABOVE_BALANCER),
    ("ipvs", ABOVE_BALANCER),
    // Locks and the histogram stand apart: they know nothing of any part.
    ("vrrp", &["sync", "sys", "histogram"]),
    ("director", DIRECTOR),
];

const ABOVE_BALANCER: &[&str] = &["sync", "sys", "histogram", "backend", "scheduler", "balancer"];
const DIRECTOR: &[&str] = &[
    "sync",
    "sys",
    "histogram",
    "backend",
    "scheduler",
    "balancer",
    "tower",
    "forward",
    "health",
    "discovery",
    "ipvs",
    "vrrp",
];

/// What a part must not mention at all, beside its imports.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("backend", &["tokio", "Instant::now", "SystemTime::now"]),
    ("scheduler", &["tokio", "Instant::now", "SystemTime::now"]),
    ("balancer", &["tokio", "Instant::now", "SystemTime::now"]),
];

#[test]
fn imports_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources are where they are looked for");
    let lib = fs::read_to_string(root.join("lib.rs")).expect("the crate has a root");
    let lifted = lifted(&lib);
    assert!(lifted.iter().any(|(name, part)| (&**name, &**part) == ("Balancer", "balancer")));
    let mut faults = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source is readable text");
        let name = file.strip_prefix(&root).expect("found below").to_string_lossy().into_owned();
        faults.extend(check(&name, &text, &lifted));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a folder of sources").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The names that the crate's root lifts out of its parts, with the part of each: `crate::Lease` is
/// an import of `balancer`.
fn lifted(lib: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = lib.lines().map(code).collect();
    let text = lines.join("\n");
    let uses = text.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    uses.flat_map(|path| {
        let path = path.trim_start_matches("self::").trim_start_matches("crate::");
        let mut names = path.split(|c| !is_name(c)).filter(|name| !name.is_empty());
        let part = names.next().unwrap_or_default().to_owned();
        names.map(move |name| (name.to_owned(), part.clone())).collect::<Vec<_>>()
    })
    .collect()
}

/// Finds what a source file must not contain; `name` is its path below `src`.
fn check(name: &str, text: &str, lifted: &[(String, String)]) -> Vec<String> {
    let part = part_of(name);
    // lib.rs ties everything together; only its parts are judged.
    if part == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == part) else {
        return vec![format!("src/{name}: `{part}` is in no layer: add it to tests/layers.rs")];
    };
    let lines: Vec<&str> = text.lines().map(code).collect();
    let mut faults = Vec::new();

    // Unit tests may reach up: a rule is tried through a balancer.
    for (line, import) in crate_paths(production(name, &lines)) {
        let from = lifted.iter().find(|(name, _)| *name == import);
        let from = from.map_or(&*import, |(_, part)| part);
        if from != part && !allowed.contains(&from) {
            faults.push(format!("src/{name}:{line}: `{part}` imports `crate::{import}`"));
        }
    }
    let forbidden = FORBIDDEN.iter().find(|(layer, _)| *layer == part).map_or(&[][..], |(_, f)| f);
    for (i, line) in production(name, &lines).iter().enumerate() {
        let words = forbidden.iter().filter(|word| line.contains(**word));
        faults.extend(words.map(|w| format!("src/{name}:{}: `{part}` mentions `{w}`", i + 1)));
    }
    for (i, line) in lines.iter().enumerate() {
        if part != "sys" && has_word(line, "unsafe") {
            faults.push(format!("src/{name}:{}: `unsafe` outside src/sys", i + 1));
        }
    }
    faults
}

/// The part that a file belongs to: its first folder, or its own name.
fn part_of(name: &str) -> &str {
    let first = name.split('/').next().unwrap_or(name);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// A line without its comment. Doc links such as `crate::Balancer` are no imports.
fn code(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// The lines ahead of the unit tests, which may read a clock to have an instant at all, and use
/// whatever makes them short.
fn production<'a>(name: &str, lines: &'a [&'a str]) -> &'a [&'a str] {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
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

/// The first names behind every `crate::` with their lines, those of `crate::{a, b::{c, d}}`
/// included, over any number of lines.
fn crate_paths(lines: &[&str]) -> Vec<(usize, String)> {
    let text = lines.join("\n");
    let mut found = Vec::new();
    for (at, matched) in text.match_indices("crate::") {
        // `$crate::` of a macro is the crate as well; `my_crate::` is another.
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let start = at + matched.len();
        let mut take = |at: usize| {
            let name: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
            if !name.is_empty() {
                found.push((1 + text[..at].matches('\n').count(), name));
            }
        };
        if !text[start..].starts_with('{') {
            take(start);
            continue;
        }
        let (mut depth, mut ahead_of_name) = (0, false);
        for (offset, c) in text[start..].char_indices() {
            match c {
                '{' => {
                    depth += 1;
                    ahead_of_name = depth == 1;
                }
                '}' => depth -= 1,
                ',' => ahead_of_name = depth == 1,
                c if c.is_whitespace() => {}
                _ if ahead_of_name => {
                    take(start + offset);
                    ahead_of_name = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c| !is_name(c)).any(|part| part == word)
}

/// The checker on a snippet, with a root that lifts a few names.
fn judge(name: &str, text: &str) -> Vec<String> {
    let lib =
        "pub use self::backend::{\n    Backend,\n};\npub use scheduler::Flow; // pub use x::Y;\n";
    check(name, text, &lifted(lib))
}

#[test]
fn an_import_upwards_is_named_by_file_line_and_path() {
    let text = "//! See [`Balancer`](crate::Balancer).\nuse crate::sync::lock;\n\
                use crate::balancer::Lease; // crate::director\n";
    assert_eq!(
        judge("scheduler/bad.rs", text),
        ["src/scheduler/bad.rs:3: `scheduler` imports `crate::balancer`"]
    );
    assert_eq!(judge("balancer/good.rs", text), [""; 0]);
}

#[test]
fn groups_are_looked_into_whatever_their_shape() {
    let text =
        "use crate::{\n    backend::{Member, State},\n    director::{self, Plan},\n    Flow,\n};\n";
    assert_eq!(
        judge("backend/bad.rs", text),
        [
            "src/backend/bad.rs:3: `backend` imports `crate::director`",
            "src/backend/bad.rs:4: `backend` imports `crate::Flow`",
        ]
    );
    assert_eq!(crate_paths(&["use crate::{a::b, c as d};"]), [(1, "a".into()), (1, "c".into())]);
    assert_eq!(crate_paths(&["pub(crate) fn f() -> other_crate::X {}"]), []);
}

#[test]
fn a_path_in_the_middle_of_code_counts() {
    let text = "fn f(x: &crate::tower::Balance) -> u8 {\n    crate::vrrp::run()\n}\n";
    assert_eq!(
        judge("forward/bad.rs", text),
        [
            "src/forward/bad.rs:1: `forward` imports `crate::tower`",
            "src/forward/bad.rs:2: `forward` imports `crate::vrrp`",
        ]
    );
    assert_eq!(judge("vrrp/bad.rs", "use crate::backend::Load;").len(), 1);
    assert_eq!(judge("vrrp/good.rs", "use crate::sys::socket;"), [""; 0]);
}

#[test]
fn clocks_runtimes_and_unsafe_are_found_where_they_must_not_be() {
    let text = "use tokio::time;\nlet t = Instant::now();\nunsafe { f() }\n";
    assert_eq!(
        judge("backend/bad.rs", text),
        [
            "src/backend/bad.rs:1: `backend` mentions `tokio`",
            "src/backend/bad.rs:2: `backend` mentions `Instant::now`",
            "src/backend/bad.rs:3: `unsafe` outside src/sys",
        ]
    );
    assert_eq!(judge("sys/good.rs", text), [""; 0]);
    let tests = "#[cfg(all(test, not(lvs_loom)))]\nmod tests {\n    Instant::now();\n}\n";
    assert_eq!(judge("backend/good.rs", tests), [""; 0]);
    assert_eq!(judge("backend/good/tests.rs", "Instant::now();"), [""; 0]);
    let elsewhere = "#[cfg(test)]\nmod tests;\nfn f() { Instant::now() }\n";
    assert_eq!(judge("backend/bad.rs", elsewhere).len(), 1, "what follows is production");
}

#[test]
fn a_new_part_must_be_placed() {
    assert_eq!(judge("novel/mod.rs", "").len(), 1);
    assert_eq!(judge("novel.rs", "").len(), 1);
    assert_eq!(judge("lib.rs", "pub mod novel;\nuse crate::novel::X;"), [""; 0]);
}
