//! The errors of the packet engine.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::layout::LAYOUT_VERSION;

/// The reason for which the packet engine cannot work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The process may not load programs, or not attach them to devices.
    #[error(
        "{action} needs the capabilities CAP_BPF and CAP_NET_ADMIN, and before Linux 6.13 CAP_PERFMON: {source}"
    )]
    Capability {
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The folder for what outlives the process cannot be used.
    #[error(
        "the folder {} for what outlives the process must lie in a BPF file system \
         (mount -t bpf bpf /sys/fs/bpf): {source}", path.display()
    )]
    PinFolder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel does not load the program or does not make a map, or a map that an earlier process left has
    /// another layout.
    #[error("the kernel does not load the program (layout {LAYOUT_VERSION}): {reason}")]
    Load {
        /// The error of the kernel, with the end of the verifier's output.
        reason: String,
    },
    /// The program cannot be attached to a device.
    #[error("the program cannot be attached to the device {device}: {reason}")]
    Attach {
        /// The name of the device.
        device: String,
        /// The cause.
        reason: String,
    },
    /// A map cannot be read or written.
    #[error("map {map}: {reason}")]
    Map {
        /// The name of the map.
        map: &'static str,
        /// The cause.
        reason: String,
    },
    /// A tap device, at which the engine gets packets to decide, cannot be made.
    #[error("a tap device for new connections cannot be made (is there /dev/net/tun?): {source}")]
    Tap {
        /// The system's error.
        source: io::Error,
    },
    /// A setting has a value that it may not have.
    #[error("setting {setting}: {reason}")]
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// What is expected.
        reason: String,
    },
    /// The kernel does not answer what it is asked about routes and devices, or does not take a route or a rule.
    #[error("the kernel's routes and devices cannot be read or changed: {source}")]
    Netlink {
        /// The system's error.
        source: io::Error,
    },
}
