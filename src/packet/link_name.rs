//! The names under which links of programs to devices are pinned.

use std::fs;
use std::path::Path;

/// A BPF file system takes no name with a dot, which that of a VLAN's device has.
const DOT: &str = "%2e";

/// Returns the name of the link to a device.
pub(super) fn link_name(prefix: &str, index: u32, device: &str) -> String {
    format!("{prefix}{index}-{}", device.replace('.', DOT))
}

/// Returns the number and the name of the device of a link.
pub(super) fn parse_link_name(prefix: &str, name: &str) -> Option<(u32, String)> {
    let (index, device) = name.strip_prefix(prefix)?.split_once('-')?;
    Some((index.parse().ok()?, device.replace(DOT, ".")))
}

/// Returns the names of all that is pinned in a folder; none if it is not there.
pub(super) fn pinned_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_return() {
        for device in ["eth0", "eth0.100", "a-b.c"] {
            let name = link_name("link-", 7, device);
            assert!(!name.contains('.'), "{name}");
            assert_eq!(parse_link_name("link-", &name), Some((7, device.to_owned())));
        }
        assert_eq!(parse_link_name("link-", "flows_ipv4"), None);
        assert_eq!(parse_link_name("link-", "link-x-eth0"), None);
    }
}
