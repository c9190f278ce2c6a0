//! How commands and options are written: the one source of parsing, `-h`, completions and the man page.

use std::fmt;

use lvs::ipvs::{IpvsForwarding, IpvsProtocol, IpvsTunnel, IpvsTunnelChecksum};

use super::options::{IpvsAction, IpvsOption};

/// The value of an option, with the name that help texts give it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OptionValue {
    None,
    Optional(&'static str),
    Required(&'static str),
}

/// How an option is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpvsOptionSpec {
    pub(super) option: IpvsOption,
    /// The letters of the short forms.
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    pub(super) value: OptionValue,
    pub(super) help: &'static str,
}

impl IpvsAction {
    /// Returns how the action is written.
    pub(super) fn name(self) -> &'static str {
        let found = OPTIONS.iter().find(|spec| spec.option == IpvsOption::Action(self));
        found.map(|spec| spec.long).unwrap_or_default()
    }
}

impl fmt::Display for IpvsOption {
    /// Writes the options of this kind: `--tcp-service, --udp-service, ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = OPTIONS.iter().filter(|spec| spec.option.is_kind_of(self));
        let names: Vec<_> = names.map(|spec| format!("--{}", spec.long)).collect();
        f.write_str(&names.join(" or "))
    }
}

/// Every command, and every option.
pub(super) const OPTIONS: [IpvsOptionSpec; 57] = {
    use IpvsAction as A;
    use IpvsForwarding as F;
    use IpvsOption as O;
    use IpvsTunnelChecksum as C;
    use OptionValue::{None as Flag, Optional, Required};
    [
        command(A::AddService, "A", "add-service", Flag, "Adds a virtual service"),
        command(A::EditService, "E", "edit-service", Flag, "Changes a virtual service"),
        command(
            A::RemoveService,
            "D",
            "delete-service",
            Flag,
            "Removes a virtual service with its servers",
        ),
        command(A::Flush, "C", "clear", Flag, "Removes all services"),
        command(
            A::Restore,
            "R",
            "restore",
            Flag,
            "Executes each line of standard input as the arguments of a command",
        ),
        command(A::Save, "S", "save", Flag, "Prints all services as lines for --restore"),
        command(A::AddServer, "a", "add-server", Flag, "Adds a real server to a service"),
        command(A::EditServer, "e", "edit-server", Flag, "Changes a real server of a service"),
        command(
            A::RemoveServer,
            "d",
            "delete-server",
            Flag,
            "Removes a real server from a service",
        ),
        command(A::List, "Ll", "list", Flag, "Lists services with their servers, or one service"),
        command(A::Zero, "Z", "zero", Flag, "Zeroes the counters of a service, or all counters"),
        command(
            A::SetTimeouts,
            "",
            "set",
            Flag,
            "Sets the timeouts TCP TCPFIN UDP, in seconds; 0 leaves a timeout as it is",
        ),
        command(
            A::StartDaemon,
            "",
            "start-daemon",
            Required("STATE"),
            "Starts the synchronization daemon `master` or `backup`",
        ),
        command(
            A::StopDaemon,
            "",
            "stop-daemon",
            Required("STATE"),
            "Stops the synchronization daemon `master` or `backup`",
        ),
        command(A::Help, "h", "help", Flag, "Prints this help"),
        command(A::Version, "v", "version", Flag, "Prints the version"),
        option(
            O::Service(Some(IpvsProtocol::Tcp)),
            "t",
            "tcp-service",
            Required("SERVICE"),
            "The TCP service at HOST[:PORT]; the address of IPv6 in brackets",
        ),
        option(
            O::Service(Some(IpvsProtocol::Udp)),
            "u",
            "udp-service",
            Required("SERVICE"),
            "The UDP service at HOST[:PORT]",
        ),
        option(
            O::Service(Some(IpvsProtocol::Sctp)),
            "",
            "sctp-service",
            Required("SERVICE"),
            "The SCTP service at HOST[:PORT]",
        ),
        option(
            O::Service(None),
            "f",
            "fwmark-service",
            Required("MARK"),
            "The service of packets with this mark of the firewall, 1 or more",
        ),
        option(O::Ipv6, "6", "ipv6", Flag, "With --fwmark-service: the packets are of IPv6"),
        option(
            O::Scheduler,
            "s",
            "scheduler",
            Required("SCHEDULER"),
            "The scheduler: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh or twos; \
             default: wlc",
        ),
        option(
            O::SchedulerFlags,
            "b",
            "sched-flags",
            Required("FLAGS"),
            "Flags of the scheduler, separated by commas: sh-fallback, sh-port, mh-fallback, mh-port, \
             flag-1, flag-2, flag-3",
        ),
        option(
            O::Persistent,
            "p",
            "persistent",
            Optional("SECONDS"),
            "A client's connections go to the same server; the time after the last connection, \
             default: 360",
        ),
        option(
            O::Netmask,
            "M",
            "netmask",
            Required("MASK"),
            "Persistence takes the clients of a network for one client: a mask, or for IPv6 the \
             length of a prefix",
        ),
        option(O::Engine, "", "pe", Required("ENGINE"), "The persistence engine: sip"),
        option(O::OnePacket, "o", "ops", Flag, "Schedules each packet of UDP alone"),
        option(
            O::Server,
            "r",
            "real-server",
            Required("SERVER"),
            "The real server at HOST[:PORT]; without a port, or without --masquerading, the port of \
             the service",
        ),
        option(
            O::Forwarding(F::DirectRouting),
            "g",
            "gatewaying",
            Flag,
            "Forwards by direct routing, the default",
        ),
        option(
            O::Forwarding(F::Tunnel(IpvsTunnel::Ipip)),
            "i",
            "ipip",
            Flag,
            "Forwards by a tunnel",
        ),
        option(
            O::Forwarding(F::Nat),
            "m",
            "masquerading",
            Flag,
            "Forwards by network address translation",
        ),
        option(
            O::TunnelKind,
            "",
            "tun-type",
            Required("KIND"),
            "The kind of the tunnel: ipip, gue or gre; default: ipip",
        ),
        option(O::TunnelPort, "", "tun-port", Required("PORT"), "The UDP port of a tunnel of GUE"),
        option(
            O::Checksum(C::None),
            "",
            "tun-nocsum",
            Flag,
            "A tunnel without checksums, the default",
        ),
        option(
            O::Checksum(C::Present),
            "",
            "tun-csum",
            Flag,
            "A tunnel of GUE or GRE with checksums",
        ),
        option(
            O::Checksum(C::RemoteOffload),
            "",
            "tun-remcsum",
            Flag,
            "A tunnel of GUE whose checksums the server computes",
        ),
        option(
            O::Weight,
            "w",
            "weight",
            Required("WEIGHT"),
            "The weight, 0 to 65535; with 0 the server gets no new connections; default: 1",
        ),
        option(
            O::UpperThreshold,
            "x",
            "u-threshold",
            Required("NUMBER"),
            "The number of connections from which on the server gets no new ones; 0 is no limit",
        ),
        option(
            O::LowerThreshold,
            "y",
            "l-threshold",
            Required("NUMBER"),
            "The number of connections below which the server gets new ones again; 0 is three \
             quarters of --u-threshold",
        ),
        option(O::Numeric, "n", "numeric", Flag, "Prints addresses and ports as numbers"),
        option(O::Connections, "c", "connection", Flag, "Lists connections"),
        option(O::Timeouts, "", "timeout", Flag, "Lists the timeouts"),
        option(O::Daemons, "", "daemon", Flag, "Lists the synchronization daemons"),
        option(O::Stats, "", "stats", Flag, "Lists counters of connections, packets and bytes"),
        option(O::Rate, "", "rate", Flag, "Lists connections, packets and bytes a second"),
        option(
            O::Exact,
            "X",
            "exact",
            Flag,
            "Prints large counters in full, without K, M, G and T",
        ),
        option(O::Thresholds, "", "thresholds", Flag, "Lists the thresholds of the servers"),
        option(
            O::PersistentConnections,
            "",
            "persistent-conn",
            Flag,
            "Lists the persistence entries of the servers; with --connection, the data of the \
             persistence engine",
        ),
        option(O::TunnelInfo, "", "tun-info", Flag, "Lists the tunnels to the servers"),
        option(O::Sort, "", "sort", Flag, "Sorts services and servers, the default"),
        option(O::NoSort, "", "nosort", Flag, "Lists services and servers in the kernel's order"),
        option(
            O::SyncId,
            "",
            "syncid",
            Required("ID"),
            "The number of a pair of daemons, 0 to 255; a backup with 0, the default, accepts all",
        ),
        option(
            O::MaxMessageLength,
            "",
            "sync-maxlen",
            Required("LENGTH"),
            "The longest message of a daemon in bytes, 1 to 65507; default: what fits into a packet",
        ),
        option(
            O::Interface,
            "",
            "mcast-interface",
            Required("INTERFACE"),
            "The interface of a daemon; default: eth0",
        ),
        option(
            O::Group,
            "",
            "mcast-group",
            Required("ADDRESS"),
            "The multicast group of a daemon; default: 224.0.0.81",
        ),
        option(
            O::Port,
            "",
            "mcast-port",
            Required("PORT"),
            "The UDP port of a daemon; default: 8848",
        ),
        option(
            O::TimeToLive,
            "",
            "mcast-ttl",
            Required("NUMBER"),
            "The time to live of a daemon's packets, 1 to 255; default: 1",
        ),
    ]
};

const fn command(
    action: IpvsAction,
    short: &'static str,
    long: &'static str,
    value: OptionValue,
    help: &'static str,
) -> IpvsOptionSpec {
    option(IpvsOption::Action(action), short, long, value, help)
}

const fn option(
    option: IpvsOption,
    short: &'static str,
    long: &'static str,
    value: OptionValue,
    help: &'static str,
) -> IpvsOptionSpec {
    IpvsOptionSpec { option, short, long, value, help }
}
