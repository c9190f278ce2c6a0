//! How IPVS forwards to a server.

use std::fmt;
use std::net::SocketAddr;

use super::syntax::KeepalivedDirective;
use crate::director::import::toml_writer::ImportedConfig;

/// Why a server of another address family than its service's is left out.
pub(super) const OTHER_FAMILY: &str =
    "the address is not of the family of the service: left out, as in keepalived";

/// How IPVS forwards to a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum KeepalivedMethod {
    Nat,
    DirectRouting,
    Tunnel,
}

impl KeepalivedMethod {
    /// Reads the last directive of these names; an unknown method is reported.
    pub(super) fn read(
        block: &KeepalivedDirective,
        names: &[&str],
        output: &mut ImportedConfig,
    ) -> Option<Self> {
        let node = block.last_child_of(names)?;
        match node.value() {
            Some("NAT") => Some(Self::Nat),
            Some("DR") => Some(Self::DirectRouting),
            Some("TUN") => Some(Self::Tunnel),
            _ => {
                let report =
                    format!("{}: not NAT, DR or TUN: ignored, as in keepalived", node.text());
                output.report_skipped(&node.position, report);
                None
            }
        }
    }

    /// Tells whether keepalived takes a server with this address: only a tunnel reaches one of another
    /// family than the service's.
    pub(super) fn reaches(self, server: SocketAddr, listen: &[SocketAddr]) -> bool {
        self == Self::Tunnel || listen.iter().any(|listen| listen.is_ipv6() == server.is_ipv6())
    }
}

impl fmt::Display for KeepalivedMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "NAT",
            Self::DirectRouting => "DR",
            Self::Tunnel => "TUN",
        })
    }
}
