//! An initramfs: the files that a kernel has at first, as an archive in the format `newc` of cpio.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Component, Path};
use std::process::Command;

use super::packages::read;

/// The files of a kernel.
#[derive(Debug, Default)]
pub(super) struct InitramfsImage {
    bytes: Vec<u8>,
    number: u32,
    folders: BTreeSet<String>,
}

impl InitramfsImage {
    /// Adds a folder, and those that it is in.
    pub(super) fn add_folder(&mut self, path: &Path) {
        let mut name = String::new();
        for component in path.components() {
            let Component::Normal(part) = component else { continue };
            if !name.is_empty() {
                name.push('/');
            }
            name += &part.to_string_lossy();
            if self.folders.insert(name.clone()) {
                self.add(&name, 0o040_755, &[]);
            }
        }
    }

    /// Adds a file that anybody may execute, with its folder.
    pub(super) fn add_file(&mut self, path: &Path, contents: &[u8]) {
        self.add_folder(path.parent().unwrap_or(path));
        let name = path.to_string_lossy();
        self.add(name.trim_start_matches('/'), 0o100_755, contents);
    }

    /// Adds a program under a name, with the libraries that it needs.
    pub(super) fn add_program(&mut self, name: &Path, program: &Path) -> Result<(), String> {
        let contents =
            |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        self.add_file(name, &contents(program)?);
        let libraries = read(Command::new("ldd").arg(program))?;
        for word in String::from_utf8_lossy(&libraries).split_whitespace() {
            if word.starts_with('/') && self.folders.insert(word.to_owned()) {
                self.add_file(Path::new(word), &contents(Path::new(word))?);
            }
        }
        Ok(())
    }

    /// Returns the archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn add(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.number += 1;
        let len = u32::try_from(contents.len()).expect("a file is less than 4 GiB");
        let name_len = u32::try_from(name.len()).expect("a name is short") + 1;
        // Number, mode, user, group, links, time, length, four numbers of devices, name, checksum.
        let fields = [self.number, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            write!(self.bytes, "{field:08x}").expect("a vector grows");
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
