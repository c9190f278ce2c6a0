//! What each engine cannot do, refused by the name of the key.

use std::net::SocketAddr;

use super::engine::{EngineKind, ServerMethod};
use super::error::{ConfigProblem, ConfigProblems, KeyPathSegment};
use super::listen::{ListenAddress, ServiceProtocol};
use super::real_server::RealServer;
use super::service::ServiceConfig;
use super::tcp::TcpConfig;
use super::udp::UdpConfig;
use super::value::OneOrMany;
use crate::engine::{ForwardingMethod, TunnelChecksum, TunnelKind};
use crate::ipvs::kernel_scheduler;

impl ServiceConfig {
    /// Checks a server that is added to a service which runs.
    pub(crate) fn validate_added(&self, server: &RealServer) -> Result<(), ConfigProblem> {
        server.forwarding_method()?;
        let alone = Self { servers: vec![server.clone()], ..self.clone() };
        let problem = validate_engines(&alone).0.into_iter().next();
        problem.map_or(Ok(()), Err)
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
            EngineKind::Packet => refuse_for_packet(service, &mut problems),
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
    let mut refuse = refusal_by(EngineKind::Ipvs, problems);
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

/// Refuses what the program in the kernel, and the request for it, have nothing for.
fn refuse_for_packet(service: &ServiceConfig, problems: &mut ConfigProblems) {
    let mut refuse = refusal_by(EngineKind::Packet, problems);
    for listen in &service.listen.0 {
        match listen {
            ListenAddress::Unix(_) => refuse(key("listen"), "it forwards IP packets"),
            ListenAddress::Mark(_) => {
                refuse(key("listen"), "a firewall mark requires `engine = \"ipvs\"`");
            }
            ListenAddress::Address(address) if address.port() == 0 => {
                refuse(key("listen"), "a free port is found by binding a socket");
            }
            ListenAddress::Address(address) if address.ip().is_unspecified() => {
                refuse(key("listen"), "a virtual service has one address");
            }
            ListenAddress::Address(_) => {}
        }
    }
    for (name, is_set, reason) in [
        ("workers", service.workers.is_some(), "the kernel forwards on all processors"),
        ("freebind", service.freebind.is_some(), "no socket is bound"),
        (
            "on_end",
            service.on_end.is_some(),
            "its records are those of flows, for `[log] connections`",
        ),
    ] {
        if is_set {
            refuse(key(name), reason);
        }
    }
    for name in service.tcp.changed_keys(&TcpConfig::default()) {
        if name != "cut_on_down" {
            refuse(
                in_table("tcp", name),
                "client and server speak with each other, and it has no such setting",
            );
        }
    }
    for name in service.udp.changed_keys(&UdpConfig::default()) {
        refuse(
            in_table("udp", name),
            "it has no such setting of a service; [packet] has the timeouts of all",
        );
    }
    let mut refuse_server = |method, method_key, server: SocketAddr, address_key| {
        let is_tunnel = matches!(method, ForwardingMethod::Tunnel(_));
        if let Some(reason) = impossible_tunnel(method) {
            refuse(method_key, reason);
        } else if !is_tunnel
            && service.virtual_addresses().any(|it| it.is_ipv6() != server.is_ipv6())
        {
            refuse(address_key, OTHER_FAMILY);
        } else if let Some(reason) = service.unreachable_reasons(server, method).next() {
            refuse(address_key, reason);
        }
    };
    for (n, server) in service.servers.iter().enumerate() {
        // A method that is wrong by itself is reported where the server is checked.
        let method = server.forwarding_method().unwrap_or_default();
        refuse_server(method, server_key(n, "method"), server.address, server_key(n, "address"));
    }
    if let Some(sorry_server) = service.sorry_server {
        let (method_key, address_key) = (key("sorry_server_method"), key("sorry_server"));
        refuse_server(service.sorry_server_method(), method_key, sorry_server, address_key);
    }
}

/// Returns why the engine `packet` has no tunnel of this kind.
const fn impossible_tunnel(method: ForwardingMethod) -> Option<&'static str> {
    match method {
        ForwardingMethod::Tunnel(TunnelKind::Gre { .. }) => {
            Some("it has no tunnels of kind `gre`: `ipip` and `gue` are possible")
        }
        ForwardingMethod::Tunnel(TunnelKind::Gue { checksum, .. })
            if !matches!(checksum, TunnelChecksum::None) =>
        {
            Some("its tunnels have no `checksum`")
        }
        _ => None,
    }
}

const OTHER_FAMILY: &str = "a packet keeps its address family, and this server has another one";

/// Returns a function that records what an engine cannot do.
fn refusal_by(
    engine: EngineKind,
    problems: &mut ConfigProblems,
) -> impl FnMut(Vec<KeyPathSegment>, &str) {
    move |path, reason| {
        let reason = format!("the engine `{}` cannot do this: {reason}", engine.name());
        problems.record(Err(ConfigProblem::new(path, reason)));
    }
}

fn key(key: &'static str) -> Vec<KeyPathSegment> {
    vec![KeyPathSegment::Key(key)]
}

fn in_table(table: &'static str, key: &'static str) -> Vec<KeyPathSegment> {
    vec![KeyPathSegment::Key(table), KeyPathSegment::Key(key)]
}

fn server_key(n: usize, key: &'static str) -> Vec<KeyPathSegment> {
    vec![KeyPathSegment::Key("server"), KeyPathSegment::Index(n), KeyPathSegment::Key(key)]
}
