//! The engine of a service, and how packets reach its servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize, Serializer};

use super::error::{ConfigProblem, KeyPathSegment};
use super::listen::ListenAddress;
use super::real_server::RealServer;
use super::service::ServiceConfig;
use super::table::config_table;
use crate::BackendId;
use crate::engine::{ForwardingMethod, TunnelChecksum, TunnelKind};

/// The engine that forwards a service's traffic.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EngineKind {
    /// This crate's forwarder, in user space.
    #[default]
    Proxy,
    /// The kernel's IPVS, which needs the module `ip_vs` and the capability `CAP_NET_ADMIN`.
    Ipvs,
    /// A program of this crate in the kernel, which needs the capabilities `CAP_BPF` and `CAP_NET_ADMIN`, a BPF
    /// file system and `/dev/net/tun`. It carries packets by `nat` and `dr`; the director chooses the server of each
    /// new connection, or its scheduler's own table in the kernel does, where the scheduler is keyed by one.
    Packet,
}

impl EngineKind {
    /// Returns the name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Ipvs => "ipvs",
            Self::Packet => "packet",
        }
    }
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ServerMethod {
    /// The director rewrites addresses and ports, and the server's answers return through it: the
    /// server's route to its clients leads through the director.
    #[default]
    Nat,
    /// Direct routing: the server is on the director's network, has the virtual address too, and
    /// answers clients by itself.
    Dr,
    /// The director sends the packets to the server within other ones; the server has the virtual
    /// address too, and answers clients by itself.
    Tunnel,
}

config_table! {
/// A builder of a [`TunnelConfig`].
builder TunnelConfigBuilder;

/// How a director encapsulates packets to a server.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct TunnelConfig {
    /// The encapsulation. Default: `"ipip"`.
    #[serde(default)]
    pub(crate) kind: TunnelEncapsulation,
    /// The UDP port of the server, from 1 to 65535; required for `gue`, and for no other kind.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// The checksum of the outer packet, for `gue` and `gre`. Default: `"none"`.
    #[serde(default)]
    pub(crate) checksum: TunnelChecksumConfig,
}
}

impl Serialize for TunnelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// An encapsulation.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TunnelEncapsulation {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP Encapsulation.
    Gue,
    /// Generic Routing Encapsulation.
    Gre,
}

/// The checksum of a tunnel's outer packet.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TunnelChecksumConfig {
    /// None.
    #[default]
    None,
    /// Over the whole packet.
    Full,
    /// Remote checksum offload, for `gue`.
    Remote,
}

impl TunnelConfig {
    /// Returns a builder of a tunnel of this type.
    pub fn builder(kind: TunnelEncapsulation) -> TunnelConfigBuilder {
        TunnelConfigBuilder { table: Self { kind, ..Self::default() } }
    }

    fn to_kind(self) -> Result<TunnelKind, ConfigProblem> {
        let checksum = match self.checksum {
            TunnelChecksumConfig::None => TunnelChecksum::None,
            TunnelChecksumConfig::Full => TunnelChecksum::Full,
            TunnelChecksumConfig::Remote => TunnelChecksum::Remote,
        };
        let refused = |key, reason: &str| Err(ConfigProblem::at_key(key, reason));
        match (self.kind, self.port) {
            (TunnelEncapsulation::Gue, None | Some(0)) => {
                refused("port", "a tunnel of kind `gue` requires a `port` from 1 to 65535")
            }
            (TunnelEncapsulation::Gue, Some(port)) => Ok(TunnelKind::Gue { port, checksum }),
            (_, Some(_)) => refused("port", "only a tunnel of kind `gue` has a `port`"),
            (TunnelEncapsulation::Ipip, None) if checksum != TunnelChecksum::None => {
                refused("checksum", "a tunnel of kind `ipip` has no `checksum`")
            }
            (TunnelEncapsulation::Ipip, None) => Ok(TunnelKind::Ipip),
            (TunnelEncapsulation::Gre, None) if checksum == TunnelChecksum::Remote => {
                refused("checksum", "only a tunnel of kind `gue` has the checksum `remote`")
            }
            (TunnelEncapsulation::Gre, None) => Ok(TunnelKind::Gre { checksum }),
        }
    }
}

impl RealServer {
    /// Returns how packets reach the server.
    pub(crate) fn forwarding_method(&self) -> Result<ForwardingMethod, ConfigProblem> {
        match (self.method.unwrap_or_default(), self.tunnel) {
            (ServerMethod::Tunnel, tunnel) => {
                let kind = tunnel.unwrap_or_default().to_kind();
                let kind =
                    kind.map_err(|problem| problem.prefixed(&[KeyPathSegment::Key("tunnel")]))?;
                Ok(ForwardingMethod::Tunnel(kind))
            }
            (_, Some(_)) => {
                let reason = "`tunnel` requires `method = \"tunnel\"`";
                Err(ConfigProblem::at_key("tunnel", reason))
            }
            (ServerMethod::Nat, None) => Ok(ForwardingMethod::Nat),
            (ServerMethod::Dr, None) => Ok(ForwardingMethod::DirectRouting),
        }
    }
}

impl ServiceConfig {
    /// Returns how packets reach the sorry server.
    pub(crate) fn sorry_server_method(&self) -> ForwardingMethod {
        match self.sorry_server_method.unwrap_or_default() {
            ServerMethod::Nat => ForwardingMethod::Nat,
            ServerMethod::Dr => ForwardingMethod::DirectRouting,
            ServerMethod::Tunnel => ForwardingMethod::Tunnel(TunnelKind::Ipip),
        }
    }

    /// Returns why the kernel does not lead from a listen address to a server, a reason for each address.
    /// To servers of a mark packets keep their ports, but with `nat`.
    pub(super) fn unreachable_reasons(
        &self,
        server: SocketAddr,
        method: ForwardingMethod,
    ) -> impl Iterator<Item = &'static str> {
        self.listen.0.iter().filter_map(move |listen| {
            let (is_ipv6, port) = match listen {
                ListenAddress::Address(address) => (address.is_ipv6(), Some(address.port())),
                ListenAddress::Mark(mark) => (mark.is_ipv6, None),
                ListenAddress::Unix(_) => return None,
            };
            let same_port = port.is_none_or(|port| [0, port].contains(&server.port()));
            if server.is_ipv6() != is_ipv6 && !matches!(method, ForwardingMethod::Tunnel(_)) {
                Some("only `tunnel` leads to a server of another address family")
            } else if method != ForwardingMethod::Nat && !same_port {
                Some("only `nat` leads to another port than the service's")
            } else {
                None
            }
        })
    }

    /// Returns the forwarding methods of the configured servers.
    pub(crate) fn forwarding_methods(&self) -> BTreeMap<BackendId, ForwardingMethod> {
        self.servers.iter().map(RealServer::method_entry).collect()
    }
}

impl RealServer {
    /// Returns the server's method under its identifier; of a configuration that was not refused.
    pub(crate) fn method_entry(&self) -> (BackendId, ForwardingMethod) {
        let method = self.forwarding_method().unwrap_or_default();
        (BackendId::from(self.address.to_string()), method)
    }
}
