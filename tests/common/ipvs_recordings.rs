//! The decisions that were recorded from a running IPVS: `tests/fixtures/ipvs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use lvs::backend::Snapshot;
use serde::Deserialize;

/// A virtual service, and what was done to it.
#[derive(Debug, Deserialize)]
pub(crate) struct Recording {
    /// The name of the file.
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) scheduler: String,
    pub(crate) flags: Vec<String>,
    pub(crate) persistence: Option<PersistenceRule>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PersistenceRule {
    pub(crate) timeout_s: u64,
    netmask: Ipv4Addr,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Step {
    Add {
        server: SocketAddr,
        weight: u32,
        #[serde(default)]
        upper_threshold: u32,
        #[serde(default)]
        lower_threshold: u32,
    },
    Weight {
        server: SocketAddr,
        weight: u32,
    },
    Remove {
        server: SocketAddr,
    },
    Connect {
        client: SocketAddr,
        vip: SocketAddr,
        before: Vec<Destination>,
        picked: Option<SocketAddr>,
    },
    /// The effect is in the counters of the next `before`.
    Close {},
    /// The effect is in the counters of the next `before`.
    Reset {},
}

/// A server as the kernel had it.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Destination {
    server: SocketAddr,
    weight: u32,
    active: u32,
    inactive: u32,
}

impl PersistenceRule {
    pub(crate) fn prefix(&self) -> u8 {
        u32::from(self.netmask).count_ones() as u8
    }
}

impl Recording {
    /// Reads all recordings: of the folder that `LVS_IPVS_TRACES` names, if it is set.
    pub(crate) fn read_all() -> Vec<Self> {
        let folder = match std::env::var_os("LVS_IPVS_TRACES") {
            Some(folder) => folder.into(),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ipvs"),
        };
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()))
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        files.sort();
        assert!(!files.is_empty(), "no recordings in {}", folder.display());
        files.iter().map(|file| Self::read(file)).collect()
    }

    fn read(file: &Path) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read(file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let recording: Self =
            serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { name, ..recording }
    }

    /// Returns the scheduler in the words of this crate.
    pub(crate) fn expression(&self) -> String {
        match self.flags.as_slice() {
            [] => self.scheduler.clone(),
            flags => format!("{}({})", self.scheduler, flags.join(", ")),
        }
    }
}

/// Sets the counters to the kernel's, and asserts that the list equals the kernel's.
pub(crate) fn mirror(snapshot: &Snapshot<SocketAddr>, before: &[Destination], place: &str) {
    let ours = snapshot.iter().map(|(backend, member)| (*backend.target(), member.weight()));
    let theirs = before.iter().map(|destination| (destination.server, destination.weight));
    assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>(), "{place}: the list differs");
    for (backend, destination) in snapshot.backends().iter().zip(before) {
        backend.set_load(destination.active, destination.inactive);
    }
}
