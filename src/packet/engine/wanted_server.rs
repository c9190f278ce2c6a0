//! What the program is to know of a server of a service.

use std::net::SocketAddr;

use crate::engine::ForwardingMethod;
use crate::packet::layout::{RawServer, server_method};

/// Returns a server of a service with an address, without a device and not available yet, or why the program cannot
/// send packets of the service to it.
pub(super) fn wanted_server(
    service: SocketAddr,
    server: SocketAddr,
    method: ForwardingMethod,
) -> Result<RawServer, String> {
    if server.is_ipv6() != service.is_ipv6() {
        return Err(format!("server {server} has another family than the service"));
    }
    let raw_method = match method {
        ForwardingMethod::Nat => server_method::NAT,
        ForwardingMethod::DirectRouting => server_method::DIRECT,
        ForwardingMethod::Tunnel(_) => {
            return Err(format!(
                "server {server} has the method {method}: only nat and dr are possible"
            ));
        }
    };
    if method == ForwardingMethod::DirectRouting && server.port() != service.port() {
        return Err(format!("the method dr keeps the port, and server {server} has another one"));
    }
    Ok(RawServer {
        address: server.ip().into(),
        port: server.port().into(),
        method: raw_method,
        ..RawServer::default()
    })
}
