//! What the packaged crate holds: whatever its pages link to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Returns whether the tests run from the published package, and not from the repository.
pub(crate) fn is_unpacked_package() -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml.orig").exists()
}

/// The paths of the package, relative to its root.
fn packaged() -> BTreeSet<PathBuf> {
    if is_unpacked_package() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (mut files, mut folders) = (BTreeSet::new(), vec![root.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder of the package") {
                let path = entry.expect("a folder of the package").path();
                let below = path.strip_prefix(root).expect("below the root").to_owned();
                match path.is_dir() {
                    true if below == Path::new("target") => {}
                    true => folders.push(path),
                    false => drop(files.insert(below)),
                }
            }
        }
        return files;
    }
    let output = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs the test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8 paths").lines().map(PathBuf::from).collect()
}

/// The targets of the links to files in a page of Markdown, and of its images.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.contains(' '));
    files.filter_map(|target| target.split('#').next()).filter(|path| !path.is_empty())
}

/// Resolves a link of a page to a path of the package.
fn resolve(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

#[test]
fn nothing_that_a_page_links_to_is_left_out_of_the_package() {
    let packaged = packaged();
    let is_page = |path: &&PathBuf| {
        let depth = path.components().count();
        path.extension().is_some_and(|ending| ending == "md")
            && (depth == 1 || path.starts_with("docs"))
    };
    let (mut pages, mut missing) = (0, Vec::new());
    for page in packaged.iter().filter(is_page) {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page));
        let text = text.expect("a packaged page can be read");
        pages += 1;
        for link in links(&text) {
            let path = resolve(page, link);
            // A folder is linked to as well.
            if !packaged.iter().any(|file| file.starts_with(&path)) {
                missing.push(format!("{} links to {link}", page.display()));
            }
        }
    }
    assert!(pages > 5, "{pages} pages");
    assert!(missing.is_empty(), "not in the package: {missing:#?}");
}
