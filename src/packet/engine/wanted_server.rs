//! What the program is to know of a server of a service.

use std::net::SocketAddr;

use crate::engine::{ForwardingMethod, TunnelChecksum, TunnelKind};
use crate::packet::layout::{RawServer, server_method};

/// Returns a server of a service with an address, without a device and not available yet, or why the program cannot
/// send packets of the service to it.
pub(super) fn wanted_server(
    service: SocketAddr,
    server: SocketAddr,
    method: ForwardingMethod,
) -> Result<RawServer, String> {
    let unsupported = |what| Err(format!("server {server} has the method {method}: {what}"));
    let (raw_method, tunnel_port) = match method {
        ForwardingMethod::Nat => (server_method::NAT, 0),
        ForwardingMethod::DirectRouting => (server_method::DIRECT, 0),
        ForwardingMethod::Tunnel(TunnelKind::Ipip) => (server_method::IPIP, 0),
        ForwardingMethod::Tunnel(TunnelKind::Gue { port, checksum: TunnelChecksum::None }) => {
            (server_method::GUE, port)
        }
        ForwardingMethod::Tunnel(TunnelKind::Gue { .. }) => {
            return unsupported("only a tunnel without a checksum is possible");
        }
        ForwardingMethod::Tunnel(TunnelKind::Gre { .. }) => {
            return unsupported("only the tunnels ipip and gue are possible");
        }
    };
    let is_tunnel = matches!(method, ForwardingMethod::Tunnel(_));
    if !is_tunnel && server.is_ipv6() != service.is_ipv6() {
        return Err(format!("server {server} has another family than the service"));
    }
    if method != ForwardingMethod::Nat && server.port() != service.port() {
        let name = method.name();
        return Err(format!(
            "the method {name} keeps the port, and server {server} has another one"
        ));
    }
    Ok(RawServer {
        address: server.ip().into(),
        port: server.port().into(),
        method: raw_method,
        tunnel_port: tunnel_port.into(),
        ..RawServer::default()
    })
}
