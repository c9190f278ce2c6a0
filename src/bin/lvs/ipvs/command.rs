//! What the arguments mean: a change of the kernel's table, or something to print.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use lvs::ipvs::{
    IpvsDaemon, IpvsDaemonState, IpvsDestination, IpvsFamily, IpvsForwarding, IpvsNetmask,
    IpvsPersistence, IpvsProtocol, IpvsRequest, IpvsService, IpvsServiceKey, IpvsTimeouts,
    IpvsTunnel, IpvsTunnelChecksum,
};

use super::arguments::IpvsArguments;
use super::error::IpvsArgumentError;
use super::names::NameLookup;
use super::options::{IpvsAction, IpvsOption};
use super::value::{
    parse_address, parse_group, parse_mark, parse_netmask, parse_number, parse_scheduler_flags,
    parse_state, parse_timeout,
};

const DEFAULT_SCHEDULER: &str = "wlc";
/// Of `-p` without a value.
const DEFAULT_PERSISTENCE_SECS: u32 = 360;
const DEFAULT_INTERFACE: &str = "eth0";
const MAX_WEIGHT: u32 = 65_535;
const MAX_THRESHOLD: u32 = 0x7fff_ffff;
/// What fits into a datagram of IPv4.
const MAX_DATAGRAM: u16 = 65_535 - 20 - 8;

/// A command for the kernel's IPVS.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum IpvsCommand {
    Change(IpvsRequest),
    /// Lists all services, or one.
    List(Option<IpvsServiceKey>, ListFormat),
    Connections {
        is_numeric: bool,
        with_engine: bool,
    },
    Timeouts,
    Daemons,
    Save {
        is_numeric: bool,
    },
    Restore,
    Help,
    Version,
}

/// How services are listed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ListFormat {
    pub(super) columns: ListColumns,
    pub(super) is_numeric: bool,
    pub(super) is_exact: bool,
    /// Whether services and servers are in the kernel's order.
    pub(super) is_unsorted: bool,
}

/// What is listed of services and servers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum ListColumns {
    #[default]
    Connections,
    Stats,
    Rate,
    Thresholds,
    Persistence,
    Tunnels,
}

impl IpvsCommand {
    /// Interprets arguments.
    pub(super) fn new(
        arguments: &IpvsArguments,
        names: &NameLookup,
    ) -> Result<Self, IpvsArgumentError> {
        use IpvsRequest as R;
        let action = arguments.action;
        if action != IpvsAction::SetTimeouts
            && let Some(word) = arguments.rest.first()
            && !matches!(action, IpvsAction::Help | IpvsAction::Version)
        {
            return Err(IpvsArgumentError::UnexpectedArgument(word.clone()));
        }
        let key = || service_key(arguments, names);
        Ok(Self::Change(match action {
            IpvsAction::AddService => R::AddService(service(arguments, key()?)?),
            IpvsAction::EditService => R::EditService(service(arguments, key()?)?),
            IpvsAction::RemoveService => R::RemoveService(key()?),
            IpvsAction::AddServer => {
                let service = key()?;
                R::AddDestination { service, destination: server(arguments, &service, names)? }
            }
            IpvsAction::EditServer => {
                let service = key()?;
                R::EditDestination { service, destination: server(arguments, &service, names)? }
            }
            IpvsAction::RemoveServer => {
                let service = key()?;
                R::RemoveDestination {
                    service,
                    address: server_address(arguments, &service, names)?,
                }
            }
            IpvsAction::Flush => R::Flush,
            IpvsAction::Zero => {
                let has_service = arguments.has(IpvsOption::Service(None));
                R::ZeroCounters(has_service.then(key).transpose()?)
            }
            IpvsAction::SetTimeouts => R::SetTimeouts(timeouts(&arguments.rest)?),
            IpvsAction::StartDaemon => R::StartDaemon(daemon(arguments)?),
            IpvsAction::StopDaemon => R::StopDaemon(state(arguments)?),
            IpvsAction::List => return list(arguments, names),
            IpvsAction::Save => {
                return Ok(Self::Save { is_numeric: arguments.has(IpvsOption::Numeric) });
            }
            IpvsAction::Restore => return Ok(Self::Restore),
            IpvsAction::Help => return Ok(Self::Help),
            IpvsAction::Version => return Ok(Self::Version),
        }))
    }
}

fn service_key(
    arguments: &IpvsArguments,
    names: &NameLookup,
) -> Result<IpvsServiceKey, IpvsArgumentError> {
    let kind = arguments.given(IpvsOption::Service(None));
    let (option, text) = arguments.value(IpvsOption::Service(None)).unwrap_or_default();
    let is_v6 = arguments.has(IpvsOption::Ipv6);
    match kind {
        Some(IpvsOption::Service(Some(protocol))) => {
            if is_v6 {
                return Err(IpvsArgumentError::Ipv6WithoutMark);
            }
            let (ip, port) = parse_address(option, text, Some(protocol), names)?;
            let address = SocketAddr::new(ip, port.unwrap_or_default());
            Ok(IpvsServiceKey::Address { protocol, address })
        }
        _ => {
            let family = if is_v6 { IpvsFamily::V6 } else { IpvsFamily::V4 };
            Ok(IpvsServiceKey::Mark { family, mark: parse_mark(option, text)? })
        }
    }
}

fn service(
    arguments: &IpvsArguments,
    key: IpvsServiceKey,
) -> Result<IpvsService, IpvsArgumentError> {
    let scheduler = arguments.value(IpvsOption::Scheduler).map(|(_, name)| name);
    // An empty name is none to ipvsadm.
    let scheduler = scheduler.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SCHEDULER);
    let mut service = IpvsService::new(key, scheduler);
    if let Some((option, flags)) = arguments.value(IpvsOption::SchedulerFlags) {
        service.scheduler_flags = parse_scheduler_flags(option, flags, scheduler)?;
    }
    let netmask = match arguments.value(IpvsOption::Netmask) {
        Some((option, text)) => parse_netmask(option, text, key.family())?,
        None => IpvsNetmask::host(key.family()),
    };
    // Without persistence the kernel has no use for a mask.
    if arguments.has(IpvsOption::Persistent) {
        let secs = match arguments.value(IpvsOption::Persistent) {
            Some((option, text)) => parse_timeout(option, text, 1)?,
            None => DEFAULT_PERSISTENCE_SECS,
        };
        let mut persistence = IpvsPersistence::new(key.family(), secs);
        persistence.netmask = netmask;
        service.persistence = Some(persistence);
    }
    let engine = arguments.value(IpvsOption::Engine).filter(|(_, name)| !name.is_empty());
    service.persistence_engine = engine.map(|(_, name)| name.to_owned());
    service.one_packet = arguments.has(IpvsOption::OnePacket);
    if let IpvsServiceKey::Address { protocol, address } = key {
        if address.port() == 0 && service.persistence.is_none() {
            return Err(IpvsArgumentError::EveryPort);
        }
        if service.one_packet && protocol != IpvsProtocol::Udp {
            return Err(IpvsArgumentError::OnePacket);
        }
    }
    Ok(service)
}

/// Returns the server's address. Without a port, it has that of the service.
fn server_address(
    arguments: &IpvsArguments,
    service: &IpvsServiceKey,
    names: &NameLookup,
) -> Result<SocketAddr, IpvsArgumentError> {
    let (option, text) = arguments.value(IpvsOption::Server).unwrap_or_default();
    let (protocol, service_port) = match service {
        IpvsServiceKey::Address { protocol, address } => (*protocol, address.port()),
        // ipvsadm knows ports of TCP for a mark.
        _ => (IpvsProtocol::Tcp, 0),
    };
    let (ip, port) = parse_address(option, text, Some(protocol), names)?;
    Ok(SocketAddr::new(ip, port.unwrap_or(service_port)))
}

fn server(
    arguments: &IpvsArguments,
    service: &IpvsServiceKey,
    names: &NameLookup,
) -> Result<IpvsDestination, IpvsArgumentError> {
    let forwarding = match arguments.given(IpvsOption::Forwarding(IpvsForwarding::Nat)) {
        Some(IpvsOption::Forwarding(IpvsForwarding::Tunnel(_))) => {
            IpvsForwarding::Tunnel(tunnel(arguments)?)
        }
        Some(IpvsOption::Forwarding(forwarding)) => forwarding,
        _ => IpvsForwarding::DirectRouting,
    };
    let mut address = server_address(arguments, service, names)?;
    let is_tunnel = matches!(forwarding, IpvsForwarding::Tunnel(_));
    if let IpvsServiceKey::Address { address: virtual_address, .. } = service
        && forwarding != IpvsForwarding::Nat
    {
        // The packet arrives there as it is.
        address.set_port(virtual_address.port());
    }
    if !is_tunnel && IpvsFamily::of(address.ip()) != service.family() {
        return Err(IpvsArgumentError::OtherFamily);
    }
    let of_tunnels =
        [IpvsOption::TunnelKind, IpvsOption::TunnelPort, IpvsOption::Checksum(<_>::default())];
    if !is_tunnel && of_tunnels.iter().any(|option| arguments.has(*option)) {
        return Err(IpvsArgumentError::NoTunnel);
    }
    let mut destination = IpvsDestination::new(address, forwarding);
    if let Some(weight) = number(arguments, IpvsOption::Weight, 0..=MAX_WEIGHT)? {
        destination.weight = weight;
    }
    let threshold = |option| number(arguments, option, 0..=MAX_THRESHOLD);
    destination.upper_threshold = threshold(IpvsOption::UpperThreshold)?.unwrap_or_default();
    destination.lower_threshold = threshold(IpvsOption::LowerThreshold)?.unwrap_or_default();
    Ok(destination)
}

fn tunnel(arguments: &IpvsArguments) -> Result<IpvsTunnel, IpvsArgumentError> {
    let (option, kind) = arguments.value(IpvsOption::TunnelKind).unwrap_or(("tun-type", "ipip"));
    let port = number(arguments, IpvsOption::TunnelPort, 1..=u16::MAX)?;
    let given = arguments.given(IpvsOption::Checksum(IpvsTunnelChecksum::None));
    let checksum = match given {
        Some(IpvsOption::Checksum(checksum)) => checksum,
        _ => IpvsTunnelChecksum::None,
    };
    let without =
        |option: String| Err(IpvsArgumentError::TunnelOption { kind: kind.to_owned(), option });
    match (kind, port) {
        ("ipip" | "gre", Some(_)) => without(IpvsOption::TunnelPort.to_string()),
        ("ipip", None) => match given {
            Some(given) => without(given.to_string()),
            None => Ok(IpvsTunnel::Ipip),
        },
        ("gre", None) => match checksum {
            IpvsTunnelChecksum::RemoteOffload => without("--tun-remcsum".to_owned()),
            checksum => Ok(IpvsTunnel::Gre { checksum }),
        },
        ("gue", Some(port)) => Ok(IpvsTunnel::Gue { port, checksum }),
        ("gue", None) => Err(IpvsArgumentError::TunnelPort),
        _ => Err(IpvsArgumentError::value(option, kind, "ipip, gue or gre")),
    }
}

fn list(arguments: &IpvsArguments, names: &NameLookup) -> Result<IpvsCommand, IpvsArgumentError> {
    use IpvsOption as O;
    let first_of = |options: &[O]| options.iter().copied().find(|option| arguments.has(*option));
    let is_numeric = arguments.has(O::Numeric);
    let with_engine = arguments.has(O::PersistentConnections);
    let of_services = [O::Stats, O::Rate, O::Thresholds, O::PersistentConnections];
    for (option, excluded, command) in [
        (O::Connections, &of_services[..3], IpvsCommand::Connections { is_numeric, with_engine }),
        (O::Timeouts, &of_services, IpvsCommand::Timeouts),
        (O::Daemons, &of_services, IpvsCommand::Daemons),
    ] {
        match first_of(excluded) {
            _ if !arguments.has(option) => {}
            Some(other) => {
                return Err(IpvsArgumentError::Conflict(option.to_string(), other.to_string()));
            }
            None => return Ok(command),
        }
    }
    let has_service = arguments.has(O::Service(None));
    let key = has_service.then(|| service_key(arguments, names)).transpose()?;
    let columns = match first_of(&[of_services.as_slice(), &[O::TunnelInfo]].concat()) {
        Some(O::Stats) => ListColumns::Stats,
        Some(O::Rate) => ListColumns::Rate,
        Some(O::Thresholds) => ListColumns::Thresholds,
        Some(O::PersistentConnections) => ListColumns::Persistence,
        Some(_) => ListColumns::Tunnels,
        None => ListColumns::Connections,
    };
    let (is_exact, is_unsorted) = (arguments.has(O::Exact), arguments.has(O::NoSort));
    Ok(IpvsCommand::List(key, ListFormat { columns, is_numeric, is_exact, is_unsorted }))
}

fn timeouts(words: &[String]) -> Result<IpvsTimeouts, IpvsArgumentError> {
    let [tcp, tcp_fin, udp, rest @ ..] = words else {
        return Err(IpvsArgumentError::ThreeTimeouts);
    };
    if let Some(word) = rest.first() {
        return Err(IpvsArgumentError::UnexpectedArgument(word.clone()));
    }
    let secs = |text| parse_timeout("set", text, 0);
    Ok(IpvsTimeouts::new(secs(tcp)?, secs(tcp_fin)?, secs(udp)?))
}

fn state(arguments: &IpvsArguments) -> Result<IpvsDaemonState, IpvsArgumentError> {
    parse_state(arguments.action.name(), &arguments.action_value)
}

fn daemon(arguments: &IpvsArguments) -> Result<IpvsDaemon, IpvsArgumentError> {
    let interface = arguments.value(IpvsOption::Interface).map(|(_, name)| name);
    let interface = interface.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_INTERFACE);
    let sync_id = number(arguments, IpvsOption::SyncId, 0..=255)?;
    let mut daemon = IpvsDaemon::new(state(arguments)?, interface, sync_id.unwrap_or_default());
    let length = number(arguments, IpvsOption::MaxMessageLength, 1..=MAX_DATAGRAM)?;
    daemon.max_message_len = length.unwrap_or_default();
    let group = arguments.value(IpvsOption::Group);
    daemon.group = group.map(|(option, text)| parse_group(option, text)).transpose()?;
    let port = number(arguments, IpvsOption::Port, 1..=u16::MAX)?;
    daemon.port = port.unwrap_or_default();
    let ttl = number(arguments, IpvsOption::TimeToLive, 1..=u8::MAX)?;
    daemon.ttl = ttl.unwrap_or_default();
    Ok(daemon)
}

fn number<T: FromStr + PartialOrd + fmt::Display>(
    arguments: &IpvsArguments,
    option: IpvsOption,
    range: RangeInclusive<T>,
) -> Result<Option<T>, IpvsArgumentError> {
    let given = arguments.value(option);
    given.map(|(option, text)| parse_number(option, text, range)).transpose()
}

#[cfg(test)]
mod tests;
