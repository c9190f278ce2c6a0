//! The `[packet]` table.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::{ConfigProblem, ConfigProblems, KeyPathSegment};
use super::table::config_table;
use super::value::{FromText, HumanDuration};
use crate::packet::{PACKET_CHECK_MARK_COUNT, PacketSettings, TunnelSource, XdpMode};

config_table! {
/// A builder of a [`PacketConfig`].
builder PacketConfigBuilder;

/// How this director uses its program in the kernel, for services with `engine = "packet"`.
///
/// The program and its flows outlive the process. A director that is killed leaves them in the kernel: open
/// flows go on, and a table of the servers, as the director left it, decides new ones: that of the scheduler, if it
/// is keyed by one, or one by weight; where a server has a connection limit, new ones are refused. The next director
/// takes all of it over.
///
/// With `[sync]` flows go on at the other director when it takes over; see there.
///
/// The engine is made for the first service that asks for it. A reload that changes `keep_at_stop` applies
/// it; another change of a running engine is reported as not applied, and needs a restart of the director.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PacketConfig {
    /// The number of flows of IPv4 that their table has room for, from 1 to 16777216; its memory is taken at the
    /// start, 262 bytes for each. A quarter of it is for flows that begin or have ended, of which the oldest is
    /// forgotten for the newest. When the table is full, the flow that was quiet for longest is forgotten. A table
    /// that an earlier process left keeps its size. Default: `262144`.
    flows: Option<u32>,
    /// The same for flows of IPv6, which have a table of their own, of 316 bytes for each. Default: `131072`.
    ipv6_flows: Option<u32>,
    /// The names of the network interfaces at which packets of clients and servers come in. Default: all that
    /// are up and have Ethernet, those that appear later too.
    #[serde(default)]
    devices: Vec<String>,
    /// The names of network interfaces at whose drivers packets of known flows are carried, before the kernel makes
    /// packets of their frames (XDP): those of physical network cards, both of clients and of servers. Packets are
    /// carried so if they come in and leave by such interfaces, and the kernel may forward there
    /// (`net.ipv4.conf.eth0.forwarding`). A driver that cannot is logged, and its interface carries packets as without.
    /// Default: none.
    #[serde(default)]
    xdp_devices: Vec<String>,
    /// The XDP mode: `"native"`, by the driver; or `"generic"`, by the kernel in front of its own path, for tests. Default:
    /// `"native"`.
    xdp_mode: Option<XdpModeConfig>,
    /// Gives packets to a container's end of a veth or netkit pair directly, which costs less; not to one that is a
    /// port of a bridge. They pass no queue, no filter and no counter of this machine's end then. Default: `true`.
    redirect_peer: Option<bool>,
    /// The networks of which packets by tunnels have their source addresses, at most one of each family, such as
    /// `["172.16.0.0/16", "fd00:16::/64"]`: flows have different ones, so that the network interface of a server
    /// spreads IP in IP over its queues. No machine may have one of the addresses, nor servers a network of them, and
    /// routers and servers must not drop their packets as forged (`rp_filter`). ICMP errors about them are lost. Default: the address of the route to the
    /// server.
    #[serde(default)]
    tunnel_sources: Vec<FromText<TunnelSource>>,
    /// The first of 16384 firewall marks that this director uses for checks with `virtual_address`: a multiple of
    /// 16384, from 16384. While there are such checks, a rule leads packets of this machine with these marks to the
    /// loopback device, by a routing table with the number of the first mark. A packet filter must not use them, nor
    /// another director of the same network namespace, nor `[ipvs]`. Default: `1819688960` (0x6c764000).
    check_marks: Option<u32>,
    /// How many new flows in a second the scheduler is asked for, for each processor; from 1. A table of the
    /// servers by weight decides those above. Default: `100000`.
    decisions_per_second: Option<u32>,
    /// How long the program waits for a sign of life of the director before that table decides all new flows,
    /// from 100 ms to 1 h. Default: `"1s"`.
    alive_for: Option<HumanDuration>,
    /// How long an established TCP connection without packets is remembered, from 1 s to 365 days. Default:
    /// `"15m"`.
    tcp_timeout: Option<HumanDuration>,
    /// How long a TCP connection without packets is remembered that has ended, or that the server has not
    /// answered, from 1 s to 365 days. Default: `"1m"`.
    closing_timeout: Option<HumanDuration>,
    /// How long a UDP flow without datagrams is remembered, from 1 s to 365 days. Default: `"5m"`.
    udp_timeout: Option<HumanDuration>,
    /// The folder for what outlives the process, in a BPF file system. Two directors of one network namespace
    /// cannot share a folder, but for one that succeeds the other. Default: `/sys/fs/bpf/lvs/net-N`, with the
    /// number of the network namespace.
    pin_folder: Option<PathBuf>,
    /// Leaves the services in the kernel when the director stops, as when it is killed. Otherwise they end, and the
    /// program is removed. Default: `false`.
    #[serde(default)]
    pub(crate) keep_at_stop: bool,
}
}

/// How frames are carried.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum XdpModeConfig {
    /// By the driver of the network interface.
    Native,
    /// By the kernel in front of its own path, for tests.
    Generic,
}

/// The size of a table of flows.
const FLOWS: RangeInclusive<u32> = 1..=1 << 24;
/// A timeout. The kernel counts nanoseconds in 64 bits.
const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

const TIMEOUT_REASON: &str = "a time from 1 s to 365 days is expected";
/// How long a director may be silent.
const ALIVE_FOR: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

impl PacketConfig {
    /// Returns a builder of the defaults.
    pub fn builder() -> PacketConfigBuilder {
        PacketConfigBuilder { table: Self::default() }
    }

    pub(super) fn validate(&self) -> ConfigProblems {
        let mut problems = ConfigProblems::default();
        let mut refuse = |key, reason: &str| {
            problems.record(Err(ConfigProblem::at_key(key, reason)));
        };
        for (key, flows) in [("flows", self.flows), ("ipv6_flows", self.ipv6_flows)] {
            if flows.is_some_and(|flows| !FLOWS.contains(&flows)) {
                let (least, most) = FLOWS.into_inner();
                refuse(key, &format!("a number from {least} to {most} is expected"));
            }
        }
        if self.check_marks == Some(0) {
            refuse("check_marks", &format!("a multiple of {PACKET_CHECK_MARK_COUNT} is expected"));
        }
        for (key, reason) in self.settings().problems() {
            refuse(key, &reason);
        }
        if self.decisions_per_second == Some(0) {
            refuse("decisions_per_second", "a number from 1 is expected");
        }
        for (key, time, range, reason) in [
            ("alive_for", self.alive_for, ALIVE_FOR, "a time from 100 ms to 1 h is expected"),
            ("tcp_timeout", self.tcp_timeout, TIMEOUT, TIMEOUT_REASON),
            ("closing_timeout", self.closing_timeout, TIMEOUT, TIMEOUT_REASON),
            ("udp_timeout", self.udp_timeout, TIMEOUT, TIMEOUT_REASON),
        ] {
            if time.is_some_and(|HumanDuration(time)| !range.contains(&time)) {
                refuse(key, reason);
            }
        }
        if self.pin_folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
            refuse("pin_folder", "an absolute path is expected");
        }
        for (key, devices) in [("devices", &self.devices), ("xdp_devices", &self.xdp_devices)] {
            for (n, device) in devices.iter().enumerate() {
                // The kernel's IFNAMSIZ, with the zero at the end.
                if !(1..16).contains(&device.len()) {
                    let path = [KeyPathSegment::Key(key), KeyPathSegment::Index(n)];
                    let reason = "the name of a network interface has 1 to 15 bytes";
                    problems.record(Err(ConfigProblem::new(path, reason)));
                }
            }
        }
        problems
    }

    /// Returns whether checks have some of these marks.
    pub(super) fn has_check_marks(&self, others: &RangeInclusive<u32>) -> bool {
        let first = self.settings().check_marks.get();
        first <= *others.end()
            && *others.start() <= first.saturating_add(PACKET_CHECK_MARK_COUNT - 1)
    }

    /// Returns the settings of the engine, for the network namespace of the calling thread.
    pub(crate) fn settings(&self) -> PacketSettings {
        let default = PacketSettings::default();
        let timeout = |configured: Option<HumanDuration>, default| {
            configured.map_or(default, |HumanDuration(timeout)| timeout)
        };
        let mut settings = default.clone();
        settings.pin_folder = self.pin_folder.clone().unwrap_or(default.pin_folder);
        settings.flows = self.flows.unwrap_or(default.flows);
        settings.ipv6_flows = self.ipv6_flows.unwrap_or(default.ipv6_flows);
        settings.devices = self.devices.clone();
        settings.xdp_devices = self.xdp_devices.clone();
        settings.xdp_mode = match self.xdp_mode {
            Some(XdpModeConfig::Native) => XdpMode::Native,
            Some(XdpModeConfig::Generic) => XdpMode::Generic,
            None => default.xdp_mode,
        };
        settings.redirect_peer = self.redirect_peer.unwrap_or(default.redirect_peer);
        settings.tunnel_sources = self.tunnel_sources.iter().map(|it| it.0).collect();
        settings.check_marks =
            self.check_marks.and_then(NonZeroU32::new).unwrap_or(default.check_marks);
        settings.decisions_per_second =
            self.decisions_per_second.unwrap_or(default.decisions_per_second);
        settings.alive_for = timeout(self.alive_for, default.alive_for);
        settings.tcp_timeout = timeout(self.tcp_timeout, default.tcp_timeout);
        settings.closing_timeout = timeout(self.closing_timeout, default.closing_timeout);
        settings.udp_timeout = timeout(self.udp_timeout, default.udp_timeout);
        settings
    }

    /// Returns the keys of another table that a running engine with this one does not apply.
    pub(crate) fn keys_for_restart(&self, other: &Self) -> Vec<&'static str> {
        let mut keys = self.changed_keys(other);
        keys.retain(|key| *key != "keep_at_stop");
        keys
    }
}
