//! The engine of a service, and what each engine refuses.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize, Serializer};

use super::error::{ConfigProblem, ConfigProblems, KeyPathSegment};
use super::listen::{ListenAddress, ServiceProtocol};
use super::real_server::RealServer;
use super::service::ServiceConfig;
use super::table::config_table;
use super::tcp::TcpConfig;
use super::udp::UdpConfig;
use super::value::OneOrMany;
use crate::BackendId;
use crate::engine::{ForwardingMethod, TunnelChecksum, TunnelKind};
use crate::ipvs::kernel_scheduler;

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
}

impl EngineKind {
    /// Returns the name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Ipvs => "ipvs",
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
    fn unreachable_reasons(
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

impl ServiceConfig {
    /// Checks a server that is added to a service which runs.
    pub(crate) fn validate_added(&self, server: &RealServer) -> Result<(), ConfigProblem> {
        server.forwarding_method()?;
        let alone = Self { servers: vec![server.clone()], ..self.clone() };
        let problem = validate_engines(&alone).0.into_iter().next();
        problem.map_or(Ok(()), Err)
    }
}

impl RealServer {
    /// Returns the server's method under its identifier; of a configuration that was not refused.
    pub(crate) fn method_entry(&self) -> (BackendId, ForwardingMethod) {
        let method = self.forwarding_method().unwrap_or_default();
        (BackendId::from(self.address.to_string()), method)
    }
}

const PROXY_METHOD: &str =
    "the engine `proxy` connects to servers by itself: only `nat` is possible";

/// Refuses what one of a service's engines cannot do: which of them serves is known at the start only.
pub(super) fn validate_engines(service: &ServiceConfig) -> ConfigProblems {
    let mut problems = ConfigProblems::default();
    if let Some(OneOrMany(engines)) = &service.engine {
        let mut refuse = |reason: String| {
            problems.record(Err(ConfigProblem::at_key("engine", reason)));
        };
        if engines.is_empty() {
            refuse("at least one engine is required".to_owned());
        }
        for (n, engine) in engines.iter().enumerate() {
            let name = engine.name();
            if engines[..n].contains(engine) {
                refuse(format!("`{name}` is there twice"));
            } else if *engine == EngineKind::Proxy && n + 1 < engines.len() {
                refuse("`proxy` can always be used: no engine after it would be".to_owned());
            }
        }
    }
    for engine in service.engines() {
        match engine {
            EngineKind::Proxy => refuse_for_proxy(service, &mut problems),
            EngineKind::Ipvs => refuse_for_ipvs(service, &mut problems),
        }
    }
    service.validate_virtual_address_checks(&mut problems);
    problems
}

fn refuse_for_proxy(service: &ServiceConfig, problems: &mut ConfigProblems) {
    if service.listen.0.iter().any(|listen| matches!(listen, ListenAddress::Mark(_))) {
        problems.record(Err(ConfigProblem::at_key(
            "listen",
            "the engine `proxy` binds sockets: a firewall mark requires `engine = \"ipvs\"`",
        )));
    }
    if service.sorry_server_method.is_some_and(|method| method != ServerMethod::Nat) {
        problems.record(Err(ConfigProblem::at_key("sorry_server_method", PROXY_METHOD)));
    }
    for (n, server) in service.servers.iter().enumerate() {
        if server.method.is_some_and(|method| method != ServerMethod::Nat) {
            let path = server_key(n, "method");
            problems.record(Err(ConfigProblem::new(path, PROXY_METHOD)));
        }
    }
}

/// Refuses the keys that the kernel has nothing for.
fn refuse_for_ipvs(service: &ServiceConfig, problems: &mut ConfigProblems) {
    let mut refuse = |path: Vec<KeyPathSegment>, reason: &str| {
        let reason = format!("the engine `ipvs` cannot do this: {reason}");
        problems.record(Err(ConfigProblem::new(path, reason)));
    };
    let key = |key| vec![KeyPathSegment::Key(key)];
    let in_table = |table, key| vec![KeyPathSegment::Key(table), KeyPathSegment::Key(key)];
    if let Err(reason) = kernel_scheduler(&service.scheduler.to_string()) {
        refuse(key("scheduler"), &reason);
    }
    for listen in &service.listen.0 {
        match listen {
            ListenAddress::Unix(_) => refuse(key("listen"), "the kernel forwards IP packets"),
            ListenAddress::Address(address) if address.port() == 0 => {
                refuse(key("listen"), "a free port is found by binding a socket");
            }
            ListenAddress::Address(address) if address.ip().is_unspecified() => {
                refuse(key("listen"), "a virtual service has one address");
            }
            ListenAddress::Address(_) | ListenAddress::Mark(_) => {}
        }
    }
    for (name, is_set, reason) in [
        ("workers", service.workers.is_some(), "the kernel forwards on all processors"),
        ("freebind", service.freebind.is_some(), "no socket is bound"),
        ("ejection", service.ejection.is_some(), "the kernel reports no failed connections"),
        ("on_end", service.on_end.is_some(), "the kernel reports no ends of connections"),
    ] {
        if is_set {
            refuse(key(name), reason);
        }
    }
    for name in service.tcp.changed_keys(&TcpConfig::default()) {
        if name != "cut_on_down" {
            refuse(in_table("tcp", name), "the kernel has no such setting of a service");
        }
    }
    for name in service.udp.changed_keys(&UdpConfig::default()) {
        if name != "one_packet" {
            refuse(in_table("udp", name), "the kernel has no such setting of a service");
        }
    }
    if let Some(persistence) = &service.persistence {
        if persistence.engine_persistence(false).is_none() {
            refuse(in_table("persistence", "timeout"), "the kernel counts whole seconds");
        }
        for name in persistence.keys_of_proxy() {
            let reason = "what happens is set for the whole kernel, by \
                `ipvs.expire_quiescent_template`, and the table has no limit";
            refuse(in_table("persistence", name), reason);
        }
    }
    for (n, server) in service.servers.iter().enumerate() {
        // A method that is wrong by itself is reported where the server is checked.
        let method = server.forwarding_method().unwrap_or_default();
        for reason in service.unreachable_reasons(server.address, method) {
            refuse(server_key(n, "address"), reason);
        }
    }
    if let Some(sorry_server) = service.sorry_server {
        let method = service.sorry_server_method();
        for reason in service.unreachable_reasons(sorry_server, method) {
            refuse(key("sorry_server"), reason);
        }
    }
    if service.protocol == ServiceProtocol::Tcp && service.only_routes() {
        refuse(in_table("tcp", "server_names"), "the kernel reads no data of connections");
    }
}

fn server_key(n: usize, key: &'static str) -> Vec<KeyPathSegment> {
    vec![KeyPathSegment::Key("server"), KeyPathSegment::Index(n), KeyPathSegment::Key(key)]
}
