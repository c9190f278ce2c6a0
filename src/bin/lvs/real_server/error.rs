//! What keeps a machine from being a real server.

use std::net::IpAddr;

/// What keeps a machine from being a real server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RealServerError {
    #[error(
        "changing addresses and settings of the network needs the capability CAP_NET_ADMIN: run as root"
    )]
    Privilege,
    #[error("cannot run `{command}`, a program of iproute2")]
    Start { command: String, source: std::io::Error },
    #[error("`{command}` failed: {output}")]
    Ip { command: String, output: String },
    #[error(
        "the network interface {interface} is missing: load the kernel module {module} (`modprobe {module}`)"
    )]
    MissingDevice { interface: &'static str, module: &'static str },
    #[error("{address} is an address of {interface}, which announces it: remove it there")]
    Announced { address: IpAddr, interface: String },
    #[error("the kernel has no GUE: load the kernel module fou (`modprobe fou`)")]
    MissingGue(#[source] Box<RealServerError>),
    #[error("cannot read the setting {key}")]
    ReadSetting { key: String, source: std::io::Error },
    #[error("cannot set {key} to {value}")]
    WriteSetting { key: String, value: u8, source: std::io::Error },
    #[error("not everything could be undone: {0}")]
    Undo(String),
}
