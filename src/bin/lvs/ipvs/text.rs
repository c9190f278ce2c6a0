//! What ipvsadm writes of services and servers in every listing.

use std::net::SocketAddr;

use lvs::ipvs::{
    IpvsForwarding, IpvsNetmask, IpvsProtocol, IpvsService, IpvsServiceKey, IpvsTunnel,
    IpvsTunnelChecksum,
};

use super::names::{NameLookup, numeric};

/// Writes addresses and ports as numbers, or by their names.
#[derive(Debug)]
pub(super) struct AddressWriter {
    names: Option<NameLookup>,
}

impl AddressWriter {
    /// Writes names where there are some, unless it writes numbers.
    pub(super) fn new(is_numeric: bool) -> Self {
        Self { names: (!is_numeric).then(NameLookup::of_system) }
    }

    pub(super) fn write(&mut self, address: SocketAddr, protocol: Option<IpvsProtocol>) -> String {
        match &mut self.names {
            Some(names) => names.named(address, protocol),
            None => numeric(address),
        }
    }
}

/// Returns the protocol whose names of ports count for a service and its servers.
pub(super) const fn protocol_of(key: &IpvsServiceKey) -> Option<IpvsProtocol> {
    match key {
        IpvsServiceKey::Address { protocol, .. } => Some(*protocol),
        _ => None,
    }
}

/// Returns the name of a scheduler's flags, or nothing.
pub(super) fn scheduler_flags(service: &IpvsService) -> String {
    let names = match &*service.scheduler {
        "sh" => ["sh-fallback", "sh-port", ""],
        "mh" => ["mh-fallback", "mh-port", ""],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let flags = &service.scheduler_flags;
    let is_set = [flags.flag1, flags.flag2, flags.flag3];
    let set = names.into_iter().zip(is_set).filter(|(name, is_set)| *is_set && !name.is_empty());
    set.map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

/// Tells whether a service has flags of its scheduler, with a name or without.
pub(super) const fn has_scheduler_flags(service: &IpvsService) -> bool {
    let flags = &service.scheduler_flags;
    flags.flag1 || flags.flag2 || flags.flag3
}

/// Returns a mask that is not for single addresses.
pub(super) fn network_mask(service: &IpvsService) -> Option<String> {
    let persistence = service.persistence?;
    match persistence.netmask {
        mask if mask == IpvsNetmask::host(service.key.family()) => None,
        IpvsNetmask::V4(mask) => Some(mask.to_string()),
        IpvsNetmask::V6(length) => Some(length.to_string()),
        _ => None,
    }
}

/// Returns the name of a tunnel's kind, its port, and its checksum by `names`.
pub(super) fn tunnel_parts(
    tunnel: IpvsTunnel,
    names: [&'static str; 3],
) -> (&'static str, Option<u16>, Option<&'static str>) {
    let name = |checksum| match checksum {
        IpvsTunnelChecksum::None => Some(names[0]),
        IpvsTunnelChecksum::Present => Some(names[1]),
        IpvsTunnelChecksum::RemoteOffload => Some(names[2]),
        _ => None,
    };
    match tunnel {
        IpvsTunnel::Ipip => ("ipip", None, None),
        IpvsTunnel::Gue { port, checksum } => ("gue", Some(port), name(checksum)),
        IpvsTunnel::Gre { checksum } => ("gre", None, name(checksum)),
        _ => ("", None, None),
    }
}

/// Returns the option that adds a server with this method.
pub(super) const fn forwarding_option(forwarding: &IpvsForwarding) -> &'static str {
    match forwarding {
        IpvsForwarding::Nat => "-m",
        IpvsForwarding::Tunnel(_) => "-i",
        // To this machine itself: the kernel chooses it.
        _ => "-g",
    }
}
