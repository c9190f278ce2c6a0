//! Changes of the machine that can be undone.

use std::fmt;
use std::net::IpAddr;

use super::error::RealServerError;
use super::host::{ANY_MODE, ip, read_setting, write_setting};
use crate::error::with_causes;
use crate::output::{complain, print_if_read};

/// A change of the machine. Its text is what an operator reads when it is done.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum HostChange {
    /// A setting of the kernel, by its name for sysctl, from a value to another.
    Set {
        key: String,
        value: u8,
        before: u8,
    },
    /// An interface that was down.
    SetLinkUp(&'static str),
    /// A tunnel over IPv6 that took packets of one family alone out of others, by its mode.
    TakeAny {
        interface: &'static str,
        before: &'static str,
    },
    /// A UDP port whose datagrams are unpacked, for the outer packets of one address family.
    AddGuePort {
        port: u16,
        is_v6: bool,
    },
    AddAddress {
        address: IpAddr,
        interface: &'static str,
    },
}

impl HostChange {
    fn apply(&self) -> Result<(), RealServerError> {
        match self {
            Self::Set { key, value, .. } => write_setting(key, *value),
            Self::SetLinkUp(interface) => run_ip(&format!("link set {interface} up")),
            Self::TakeAny { interface, .. } => set_tunnel_mode(interface, ANY_MODE),
            Self::AddGuePort { port, is_v6 } => {
                run_ip(&format!("{} fou add port {port} gue", family(*is_v6)))
            }
            Self::AddAddress { address, interface } => {
                // Nobody on the network is to be asked whether an IPv6 address is free: the director and
                // the other servers have it.
                let (family, length, flag) = match address.is_ipv6() {
                    true => ("-6", 128, " nodad"),
                    false => ("-4", 32, ""),
                };
                run_ip(&format!("{family} address add {address}/{length} dev {interface}{flag}"))
            }
        }
    }

    /// Undoes the change, and returns what was done.
    fn undo(&self) -> Result<String, RealServerError> {
        match self {
            Self::Set { key, value, before } => {
                let now = read_setting(key)?;
                if now != *value {
                    return Ok(format!("left {key} at {now}: another program has changed it"));
                }
                write_setting(key, *before)?;
                Ok(format!("set {key} from {value} to {before}"))
            }
            Self::SetLinkUp(interface) => {
                run_ip(&format!("link set {interface} down"))?;
                Ok(format!("set {interface} down"))
            }
            Self::TakeAny { interface, before } => {
                set_tunnel_mode(interface, before)?;
                Ok(format!("set the mode of {interface} from {ANY_MODE} to {before}"))
            }
            Self::AddGuePort { port, is_v6 } => {
                run_ip(&format!("{} fou del port {port}", family(*is_v6)))?;
                Ok(format!("removed the GUE port {port}{}", over(*is_v6)))
            }
            Self::AddAddress { address, interface } => {
                let length = if address.is_ipv6() { 128 } else { 32 };
                let family = family(address.is_ipv6());
                run_ip(&format!("{family} address delete {address}/{length} dev {interface}"))?;
                Ok(format!("removed {address} from {interface}"))
            }
        }
    }
}

impl fmt::Display for HostChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { key, value, before } => write!(f, "set {key} from {before} to {value}"),
            Self::SetLinkUp(interface) => write!(f, "set {interface} up"),
            Self::TakeAny { interface, before } => {
                write!(f, "set the mode of {interface} from {before} to {ANY_MODE}")
            }
            Self::AddGuePort { port, is_v6 } => {
                write!(f, "added the GUE port {port}{}", over(*is_v6))
            }
            Self::AddAddress { address, interface } => write!(f, "added {address} to {interface}"),
        }
    }
}

fn run_ip(arguments: &str) -> Result<(), RealServerError> {
    ip(arguments).map(drop)
}

fn set_tunnel_mode(interface: &str, mode: &str) -> Result<(), RealServerError> {
    run_ip(&format!("-6 tunnel change {interface} mode {mode}"))
}

const fn family(is_v6: bool) -> &'static str {
    if is_v6 { "-6" } else { "-4" }
}

const fn over(is_v6: bool) -> &'static str {
    if is_v6 { " over IPv6" } else { "" }
}

/// Changes that were made, which [`undo`](Self::undo) undoes.
#[derive(Debug)]
pub(super) struct AppliedChanges(Vec<HostChange>);

impl AppliedChanges {
    /// Makes all changes, in order, and prints each; after one that fails, undoes those before it.
    pub(super) fn apply(changes: Vec<HostChange>) -> Result<Self, RealServerError> {
        let mut applied = Self(Vec::new());
        for change in changes {
            if let Err(error) = change.apply() {
                if let Err(more) = applied.undo() {
                    complain(&format!("error: {}\n", with_causes(&more)));
                }
                return Err(error);
            }
            print_if_read(&change.to_string());
            applied.0.push(change);
        }
        Ok(applied)
    }

    /// Undoes all changes, the last one first, and prints each. One that fails does not keep the others.
    pub(super) fn undo(self) -> Result<(), RealServerError> {
        let mut failures = Vec::new();
        for change in self.0.iter().rev() {
            match change.undo() {
                Ok(done) => print_if_read(&done),
                Err(error) => failures.push(with_causes(&error)),
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(RealServerError::Undo(failures.join("; "))),
        }
    }
}
