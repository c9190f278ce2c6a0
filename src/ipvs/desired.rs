//! What the kernel should have for a virtual service, as a pure function of the request and the set.

use std::net::{Ipv4Addr, SocketAddr};

use super::address::IpvsFamily;
use super::destination::{
    IpvsDestination, IpvsDestinationStatus, IpvsForwarding, IpvsTunnel, IpvsTunnelChecksum,
};
use super::scheduler::kernel_scheduler;
use super::service::{IpvsNetmask, IpvsPersistence, IpvsService, IpvsServiceKey};
use crate::backend::{BackendState, Member, Snapshot};
use crate::engine::{
    EngineAddress, EngineProtocol, EngineRequest, FirewallMark, ForwardingMethod, NewConnections,
    TunnelChecksum, TunnelKind,
};

/// Returns the key of the service that a request asks for.
fn service_key(request: &EngineRequest) -> IpvsServiceKey {
    match request.address {
        EngineAddress::Socket { protocol: EngineProtocol::Tcp, address } => {
            IpvsServiceKey::tcp(address)
        }
        EngineAddress::Socket { protocol: EngineProtocol::Udp, address } => {
            IpvsServiceKey::udp(address)
        }
        EngineAddress::Mark(FirewallMark { mark, is_ipv6 }) => {
            let family = if is_ipv6 { IpvsFamily::V6 } else { IpvsFamily::V4 };
            IpvsServiceKey::Mark { family, mark }
        }
    }
}

/// Returns the service without destinations.
///
/// # Errors
/// A text that says what the kernel does not have.
pub(super) fn desired_service(request: &EngineRequest) -> Result<IpvsService, String> {
    let (scheduler, flags) = kernel_scheduler(&request.scheduler)?;
    let key = service_key(request);
    let mut service = IpvsService::new(key, scheduler);
    service.scheduler_flags = flags;
    service.one_packet = request.one_packet;
    if let Some(persistence) = request.persistence {
        let seconds = u32::try_from(persistence.timeout.as_secs())
            .map_err(|_| "the timeout of persistence is longer than 2^32 s".to_owned())?;
        let mut of_kernel = IpvsPersistence::new(key.family(), seconds);
        let prefix = u32::from(persistence.prefix);
        of_kernel.netmask = match key.family() {
            IpvsFamily::V4 => IpvsNetmask::V4(ipv4_mask(prefix)),
            IpvsFamily::V6 => IpvsNetmask::V6(prefix),
        };
        service.persistence = Some(of_kernel);
    }
    Ok(service)
}

fn ipv4_mask(prefix: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0))
}

/// Returns the destinations of the service, the oldest first: the kernel lists the newest first, as a set
/// does.
///
/// | state of a backend | destination |
/// |---|---|
/// | eligible | its weight; in slow start of any, the shares of all |
/// | quiesced, draining, ejected, withheld | weight 0: connections and persistent clients stay |
/// | down, disabled | none if connections are to end, if the service is persistent, of UDP or by mark; else weight 0 |
///
/// A persistent client and a UDP flow, of which a mark may have some, would stay at a destination of weight 0
/// that is down. While no backend gets connections, the sorry server does.
pub(super) fn desired_destinations(
    request: &EngineRequest,
    snapshot: &Snapshot<SocketAddr>,
) -> Vec<IpvsDestination> {
    let removes_down =
        request.cut_on_down || request.persistence.is_some() || request.address.has_udp();
    let members = snapshot.members();
    let eligible = || members.iter().filter(|member| member.share() > 0);
    let has_shares_by_weight = has_shares_by_weight(eligible());
    let mut destinations = Vec::with_capacity(members.len() + 1);
    for (backend, member) in snapshot.iter().collect::<Vec<_>>().into_iter().rev() {
        let is_down = matches!(member.state(), BackendState::Down | BackendState::Disabled);
        let weight = match member.share() {
            0 if is_down && removes_down => continue,
            0 => 0,
            _ if has_shares_by_weight => member.weight(),
            share => share,
        };
        let address = request.destination_address(*backend.target());
        let method = request.methods.get(backend.id());
        let mut destination = IpvsDestination::new(address, forwarding(method));
        destination.weight = weight;
        destination.upper_threshold = member.limits().max_connections();
        destination.lower_threshold = member.limits().resume_below();
        destinations.push(destination);
    }
    if let Some(sorry_server) = request.sorry_server
        && eligible().next().is_none()
    {
        let sorry_server = request.destination_address(sorry_server);
        destinations.retain(|destination| destination.address != sorry_server);
        let method = forwarding(request.sorry_server_method);
        destinations.push(IpvsDestination::new(sorry_server, method));
    }
    destinations
}

/// Returns the destinations of a service that drains: those of the set, without new connections, and this
/// machine itself if a socket of it gets them.
pub(super) fn draining_destinations(
    request: &EngineRequest,
    snapshot: &Snapshot<SocketAddr>,
    new_connections: NewConnections,
) -> Vec<IpvsDestination> {
    let mut destinations = desired_destinations(request, snapshot);
    destinations.iter_mut().for_each(|destination| destination.weight = 0);
    // No socket listens on a mark.
    if let (NewConnections::Local, EngineAddress::Socket { address, .. }) =
        (new_connections, request.address)
    {
        destinations.push(IpvsDestination::new(address, IpvsForwarding::Local));
    }
    destinations
}

/// Returns whether a destination that the set has no more stays for its TCP connections, with weight 0; UDP
/// flows of the same mark stay as long. With persistence it does not: clients would return to it. `has_settled` says that connections that had begun
/// when it left are established.
pub(super) fn may_have_connections(
    request: &EngineRequest,
    status: &IpvsDestinationStatus,
    has_settled: bool,
) -> bool {
    let is_udp =
        matches!(request.address, EngineAddress::Socket { protocol: EngineProtocol::Udp, .. });
    let ends_at_once = request.persistence.is_some() || is_udp;
    // One may begin until it has weight 0.
    let may_begin = status.destination.weight > 0;
    let may_be_established = status.inactive_connections > 0 && !has_settled;
    !ends_at_once
        && status.destination.forwarding != IpvsForwarding::Local
        && (status.active_connections > 0 || may_begin || may_be_established)
}

/// Returns whether the shares are in the ratio of the weights, as without a slow start.
fn has_shares_by_weight<'a>(mut eligible: impl Iterator<Item = &'a Member>) -> bool {
    let Some(first) = eligible.next() else { return true };
    let product = |share: u32, weight: u32| u64::from(share) * u64::from(weight);
    eligible.all(|other| {
        product(first.share(), other.weight()) == product(other.share(), first.weight())
    })
}

/// Returns the kernel's method.
pub(super) fn forwarding(method: ForwardingMethod) -> IpvsForwarding {
    let checksum = |checksum| match checksum {
        TunnelChecksum::None => IpvsTunnelChecksum::None,
        TunnelChecksum::Full => IpvsTunnelChecksum::Present,
        TunnelChecksum::Remote => IpvsTunnelChecksum::RemoteOffload,
    };
    match method {
        ForwardingMethod::Nat => IpvsForwarding::Nat,
        ForwardingMethod::DirectRouting => IpvsForwarding::DirectRouting,
        ForwardingMethod::Tunnel(TunnelKind::Ipip) => IpvsForwarding::Tunnel(IpvsTunnel::Ipip),
        ForwardingMethod::Tunnel(TunnelKind::Gue { port, checksum: kind }) => {
            IpvsForwarding::Tunnel(IpvsTunnel::Gue { port, checksum: checksum(kind) })
        }
        ForwardingMethod::Tunnel(TunnelKind::Gre { checksum: kind }) => {
            IpvsForwarding::Tunnel(IpvsTunnel::Gre { checksum: checksum(kind) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::backend::{BackendSet, Health, Limits, Spec};
    use crate::balancer::Balancer;
    use crate::engine::EnginePersistence;
    use crate::scheduler::RoundRobin;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn request(set: &BackendSet<SocketAddr>) -> EngineRequest {
        let balancer = Balancer::new(set, RoundRobin::new()).expect("a valid set");
        EngineRequest::new("web", socket(EngineProtocol::Tcp, "10.0.0.1:80"), balancer, "wlc")
    }

    fn socket(protocol: EngineProtocol, text: &str) -> EngineAddress {
        EngineAddress::Socket { protocol, address: address(text) }
    }

    fn mark(number: u32, is_ipv6: bool) -> EngineAddress {
        let mark = number.try_into().expect("not 0");
        EngineAddress::Mark(FirewallMark { mark, is_ipv6 })
    }

    fn three_servers() -> BackendSet<SocketAddr> {
        let set = BackendSet::new();
        for (n, weight) in [(1, 1), (2, 2), (3, 3)] {
            let server = Spec::from(address(&format!("10.0.1.{n}:0"))).weight(weight);
            set.insert(server.limits(Limits::new(10))).expect("a new server");
        }
        set
    }

    /// Returns the last octet of each destination's address with its weight.
    fn weights(request: &EngineRequest, set: &BackendSet<SocketAddr>) -> Vec<(u8, u32)> {
        let destinations = desired_destinations(request, &set.snapshot());
        let weight = |destination: &IpvsDestination| match destination.address {
            SocketAddr::V4(address) => (address.ip().octets()[3], destination.weight),
            SocketAddr::V6(_) => panic!("IPv4 only"),
        };
        destinations.iter().map(weight).collect()
    }

    #[test]
    fn destinations_are_in_the_order_of_the_set_with_ports_limits_and_methods() {
        let set = three_servers();
        let request = request(&set);
        let id = crate::BackendId::from("10.0.1.2:0");
        request.methods.replace(BTreeMap::from([(id, ForwardingMethod::DirectRouting)]));
        assert_eq!(weights(&request, &set), [(1, 1), (2, 2), (3, 3)]);
        let destinations = desired_destinations(&request, &set.snapshot());
        assert!(destinations.iter().all(|destination| destination.address.port() == 80));
        assert!(destinations.iter().all(|destination| destination.upper_threshold == 10));
        let methods = destinations.iter().map(|destination| destination.forwarding);
        let methods: Vec<_> = methods.collect();
        let (nat, routing) = (IpvsForwarding::Nat, IpvsForwarding::DirectRouting);
        assert_eq!(methods, [nat, routing, nat]);
    }

    #[test]
    fn servers_that_are_out_keep_their_connections_unless_clients_would_stay_with_the_dead() {
        let set = three_servers();
        let mut request = request(&set);
        set.drain(&"10.0.1.1:0".into()).expect("it is there");
        set.set_health(&"10.0.1.2:0".into(), Health::Down).expect("it is there");
        assert_eq!(weights(&request, &set), [(1, 0), (2, 0), (3, 3)]);
        request.persistence =
            Some(EnginePersistence { timeout: Duration::from_secs(300), prefix: 24 });
        assert_eq!(weights(&request, &set), [(1, 0), (3, 3)]);
        request.persistence = None;
        for other in [socket(EngineProtocol::Udp, "10.0.0.1:80"), mark(7, false)] {
            request.address = other;
            assert_eq!(weights(&request, &set), [(1, 0), (3, 3)]);
        }
        request.address = socket(EngineProtocol::Tcp, "10.0.0.1:80");
        request.cut_on_down = true;
        assert_eq!(weights(&request, &set), [(1, 0), (3, 3)]);
    }

    #[test]
    fn the_sorry_server_is_there_while_no_other_gets_connections() {
        let set = three_servers();
        let mut request = request(&set);
        request.sorry_server = Some(address("10.0.1.9:80"));
        assert_eq!(weights(&request, &set), [(1, 1), (2, 2), (3, 3)]);
        for n in 1..=3 {
            set.drain(&format!("10.0.1.{n}:0").as_str().into()).expect("it is there");
        }
        assert_eq!(weights(&request, &set), [(1, 0), (2, 0), (3, 0), (9, 1)]);
        request.sorry_server_method = ForwardingMethod::DirectRouting;
        let sorry_server = desired_destinations(&request, &set.snapshot()).pop();
        let sorry_server = sorry_server.expect("four destinations");
        assert_eq!(sorry_server.forwarding, IpvsForwarding::DirectRouting);
        set.enable(&"10.0.1.2:0".into()).expect("it is there");
        assert_eq!(weights(&request, &set), [(1, 0), (2, 2), (3, 0)]);
    }

    #[test]
    fn a_mark_has_no_port_that_servers_could_take_and_no_socket() {
        let set = three_servers();
        let mut request = request(&set);
        request.address = mark(7, false);
        let key = desired_service(&request).expect("the kernel has it").key;
        assert_eq!(key.to_string(), "FWM 7");
        let destinations = draining_destinations(&request, &set.snapshot(), NewConnections::Local);
        let addresses = destinations.iter().map(|destination| destination.address.to_string());
        assert_eq!(addresses.collect::<Vec<_>>(), ["10.0.1.1:0", "10.0.1.2:0", "10.0.1.3:0"]);
        request.address = mark(7, true);
        let key = desired_service(&request).expect("the kernel has it").key;
        assert_eq!(key.to_string(), "FWM 7 IPv6");
    }

    #[test]
    fn persistence_has_the_mask_of_the_family() {
        let set = three_servers();
        let mut request = request(&set);
        request.persistence =
            Some(EnginePersistence { timeout: Duration::from_secs(300), prefix: 24 });
        let persistence = desired_service(&request).expect("the kernel has it").persistence;
        let persistence = persistence.expect("it is set");
        let mask = IpvsNetmask::V4(Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!((persistence.timeout_secs, persistence.netmask), (300, mask));
        for of_ipv6 in [socket(EngineProtocol::Tcp, "[2001:db8::1]:80"), mark(7, true)] {
            request.address = of_ipv6;
            let persistence = desired_service(&request).expect("the kernel has it").persistence;
            assert_eq!(persistence.expect("it is set").netmask, IpvsNetmask::V6(24));
        }
        assert_eq!((ipv4_mask(0), ipv4_mask(32)), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    }
}
