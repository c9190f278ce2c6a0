//! `lvs real-server`: the side of a real server that gets packets by direct routing or through a tunnel.

mod change;
mod error;
mod host;

use std::net::IpAddr;

use clap::ValueEnum;

use self::change::{AppliedChanges, HostChange};
pub(crate) use self::error::RealServerError;
use self::host::{
    ANY_MODE, address_owners, check_gue, check_privilege, is_link_up, read_setting, tunnel_mode,
};
use crate::error::CliError;
use crate::output::print_if_read;
use crate::service_manager as manager;
use crate::signals::Signals;

/// What a real server needs.
#[derive(Debug, clap::Args)]
pub(crate) struct RealServerArgs {
    /// The virtual address, without a port; repeat it for each.
    #[arg(long = "vip", value_name = "ADDRESS", required = true, value_parser = parse_virtual_address)]
    addresses: Vec<IpAddr>,
    /// How the director's packets reach this machine: `method` in the director's configuration.
    #[arg(long, value_enum, default_value = "dr")]
    method: RealServerMethod,
    /// The encapsulation, with `--method tunnel`. Default: `ipip`.
    #[arg(long, value_enum, value_name = "KIND")]
    tunnel: Option<Decapsulation>,
    /// The UDP port of a tunnel of kind `gue`.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The address family of the packets that others come in, with `--method tunnel`. Default: that of each virtual
    /// address.
    #[arg(long, value_enum, value_name = "FAMILY")]
    over: Option<OuterFamily>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum OuterFamily {
    /// The director sends to an IPv4 address of this machine.
    Ipv4,
    /// The director sends to an IPv6 address of this machine.
    Ipv6,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum RealServerMethod {
    /// Direct routing: the director is on the network of this machine.
    Dr,
    /// The director sends packets within other ones.
    Tunnel,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Decapsulation {
    /// IP in IP.
    Ipip,
    /// Generic UDP Encapsulation.
    Gue,
    /// Generic Routing Encapsulation, for IPv4.
    Gre,
}

impl Decapsulation {
    /// Returns the interface that takes packets of a family out of those of a family, of any machine, and the kernel
    /// module that has it.
    const fn device(self, is_v6: bool, is_over_v6: bool) -> (&'static str, &'static str) {
        match (self, is_v6, is_over_v6) {
            (Self::Gre, ..) => ("gre0", "ip_gre"),
            (_, false, false) => ("tunl0", "ipip"),
            (_, true, false) => ("sit0", "sit"),
            (_, _, true) => (IPV6_TUNNEL, "ip6_tunnel"),
        }
    }
}

/// The interface that unpacks packets of IPv6: those of IPv6 in them, and in the mode `any` those of IPv4, too.
const IPV6_TUNNEL: &str = "ip6tnl0";

/// Prepares this machine, waits for a signal, and undoes what it changed.
pub(crate) async fn run(args: RealServerArgs) -> Result<(), CliError> {
    let changes = plan(&args)?;
    // Before the first change: a signal must not end the program without the undoing.
    let mut signals = Signals::new().map_err(CliError::Signals)?;
    let applied = AppliedChanges::apply(changes)?;
    print_if_read("ready: SIGINT or SIGTERM undoes the changes");
    manager::ready();
    // The terminal's end (SIGHUP) ends the program, too: there is nothing to reload.
    signals.next().await;
    manager::stopping();
    Ok(applied.undo()?)
}

/// Returns the changes that this machine needs, in order; what is as it should be needs none.
fn plan(args: &RealServerArgs) -> Result<Vec<HostChange>, RealServerError> {
    check_privilege()?;
    let tunnel = args.decapsulation();
    if tunnel == Some(Decapsulation::Gue) {
        check_gue()?;
    }
    let mut changes = Vec::new();
    let has_v4 = args.addresses.iter().any(IpAddr::is_ipv4);
    let has_v6 = args.addresses.iter().any(IpAddr::is_ipv6);
    // Before the addresses, so that the machine never answers for them. Of a setting for all interfaces
    // and that of one of them, the kernel goes by the larger value; over IPv6 it does not answer for
    // addresses of other interfaces.
    if has_v4 {
        changes.extend(raise_setting("net.ipv4.conf.all.arp_ignore", 1)?);
        changes.extend(raise_setting("net.ipv4.conf.all.arp_announce", 2)?);
    }
    for (is_wanted, is_v6) in [(has_v4, false), (has_v6, true)] {
        if let Some(tunnel) = tunnel
            && is_wanted
        {
            plan_decapsulation(tunnel, args, is_v6, &mut changes)?;
        }
    }
    for address in &args.addresses {
        // The interface that the packets arrive through: the kernel's check of their source accepts none
        // by one that has no address.
        let interface = match tunnel {
            None => "lo",
            Some(tunnel) => tunnel.device(address.is_ipv6(), args.is_over_v6(address.is_ipv6())).0,
        };
        let owners = address_owners(*address)?;
        if let Some(other) = owners.iter().find(|name| !["lo", interface].contains(&name.as_str()))
        {
            return Err(RealServerError::Announced { address: *address, interface: other.clone() });
        }
        if !owners.iter().any(|name| name == interface) {
            changes.push(HostChange::AddAddress { address: *address, interface });
        }
    }
    Ok(changes)
}

fn plan_decapsulation(
    tunnel: Decapsulation,
    args: &RealServerArgs,
    is_v6: bool,
    changes: &mut Vec<HostChange>,
) -> Result<(), RealServerError> {
    let is_over_v6 = args.is_over_v6(is_v6);
    let (interface, module) = tunnel.device(is_v6, is_over_v6);
    if !is_v6 {
        // The way back to a client does not lead through the tunnel: 1, from this interface or from all of
        // them, would drop the packets. 2 accepts clients that there is any way to, and is the larger value.
        let key = format!("net.ipv4.conf.{interface}.rp_filter");
        let missing = |error| match error {
            RealServerError::ReadSetting { source, .. }
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                RealServerError::MissingDevice { interface, module }
            }
            error => error,
        };
        changes.extend(raise_setting(&key, 2).map_err(missing)?);
    }
    let is_up =
        is_link_up(interface)?.ok_or(RealServerError::MissingDevice { interface, module })?;
    let mut wanted = Vec::new();
    if interface == IPV6_TUNNEL {
        let before = tunnel_mode(interface)?;
        let of_family = if is_v6 { "ip6ip6" } else { "ipip6" };
        let takes_family = before == ANY_MODE || before == of_family;
        wanted.extend((!takes_family).then_some(HostChange::TakeAny { interface, before }));
    }
    wanted.extend((!is_up).then_some(HostChange::SetLinkUp(interface)));
    wanted.extend(args.port.map(|port| HostChange::AddGuePort { port, is_v6: is_over_v6 }));
    // Addresses of both families may come in packets of one.
    wanted.retain(|change| !changes.contains(change));
    changes.extend(wanted);
    Ok(())
}

/// Returns the change that a setting needs to have at least this value.
fn raise_setting(key: &str, value: u8) -> Result<Option<HostChange>, RealServerError> {
    let before = read_setting(key)?;
    let change = || HostChange::Set { key: key.to_owned(), value, before };
    Ok((before < value).then(change))
}

impl RealServerArgs {
    /// Checks the options that depend on each other.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        match (self.decapsulation(), self.port) {
            (None, _) if self.tunnel.is_some() || self.port.is_some() || self.over.is_some() => {
                Err("the options --tunnel, --port and --over are for --method tunnel")
            }
            (Some(Decapsulation::Gue), None) => Err("--tunnel gue requires the option --port"),
            (Some(Decapsulation::Ipip | Decapsulation::Gre), Some(_)) => {
                Err("the option --port is for --tunnel gue")
            }
            (Some(Decapsulation::Gre), _) if self.addresses.iter().any(IpAddr::is_ipv6) => {
                Err("--tunnel gre is for IPv4 addresses")
            }
            (Some(Decapsulation::Gre), _) if self.over == Some(OuterFamily::Ipv6) => {
                Err("--tunnel gre is over IPv4")
            }
            _ => Ok(()),
        }
    }

    /// Returns whether packets of a family come in those of IPv6.
    fn is_over_v6(&self, is_v6: bool) -> bool {
        self.over.map_or(is_v6, |over| over == OuterFamily::Ipv6)
    }

    fn decapsulation(&self) -> Option<Decapsulation> {
        let is_tunnel = self.method == RealServerMethod::Tunnel;
        is_tunnel.then(|| self.tunnel.unwrap_or(Decapsulation::Ipip))
    }
}

fn parse_virtual_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|error| format!("{error}, such as 192.0.2.10"))?;
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err("a virtual address is one that clients can connect to".to_owned());
    }
    Ok(address)
}
