//! The modules of a kernel, in an order in which they can be loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::read;

/// Returns the contents of these modules and of those that they need, in the order of loading. Modules
/// that the kernel does not have are left out: it may have them built in.
pub(super) fn in_order(folder: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files = BTreeMap::new();
    find(folder, &mut files)?;
    let mut ordered = Vec::new();
    for name in names {
        add(&files, name, &mut ordered)?;
    }
    Ok(ordered)
}

fn add(
    files: &BTreeMap<String, PathBuf>,
    name: &str,
    ordered: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), String> {
    let Some(path) = files.get(name).filter(|_| ordered.iter().all(|(it, _)| it != name)) else {
        return Ok(());
    };
    let module = match path.extension().is_some_and(|extension| extension == "xz") {
        true => read(Command::new("xz").arg("-dc").arg(path))?,
        false => fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?,
    };
    // The module's information is text: `depends=nf_conntrack,libcrc32c`, and a zero.
    let key = b"depends=";
    let start = module.windows(key.len()).position(|window| window == key);
    let value = &module[start.ok_or_else(|| format!("{name} is no module"))? + key.len()..];
    let value = value.split(|octet| *octet == 0).next().unwrap_or_default();
    for needed in String::from_utf8_lossy(value).split(',') {
        add(files, &needed.replace('-', "_"), ordered)?;
    }
    ordered.push((name.to_owned(), module));
    Ok(())
}

/// Finds the files of modules by their names, in which `-` is `_`.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), String> {
    let describe = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(describe)? {
        let path = entry.map_err(describe)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some((name, _)) = name.split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}
