//! The settings of the packet engine.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tunnel_source::TunnelSource;
use super::xdp_mode::XdpMode;

/// The settings of a [`PacketEngine`](super::PacketEngine).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::packet::PacketSettings;
///
/// let mut settings = PacketSettings::default();
/// settings.flows = 1 << 20;
/// settings.udp_timeout = Duration::from_secs(30);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PacketSettings {
    /// The folder for what outlives the process, in a BPF file system. Two engines in one network namespace
    /// cannot share one. Default: `/sys/fs/bpf/lvs/net-N`, with the number of the network namespace.
    pub pin_folder: PathBuf,
    /// The flows of IPv4 that their table has room for, each of 262 octets of the kernel's memory, taken at
    /// the start. A quarter of it is for flows that begin or have ended, of which the oldest is forgotten for the
    /// newest. When the table is full, the flow that was quiet for longest is forgotten. A table that an earlier
    /// process left keeps its size. Default: 262 144.
    pub flows: u32,
    /// The same for the flows of IPv6, which have a table of their own, and take 316 octets each. Default:
    /// 131 072.
    pub ipv6_flows: u32,
    /// The devices at which packets of clients and servers come in. Default: none named, which stands for
    /// all devices with Ethernet that are up, those that appear later too.
    pub devices: Vec<String>,
    /// The devices at whose drivers frames of known flows are carried (see [the module](super#frames-at-xdp)). One that
    /// cannot carries them as without. Default: none.
    pub xdp_devices: Vec<String>,
    /// The XDP mode at these devices. Default: [`XdpMode::Native`].
    pub xdp_mode: XdpMode,
    /// Whether packets by one end of a pair of devices (veth, netkit), of which the other end is in another
    /// network namespace, are given to the other end directly, if the device has no other neighbour and that end is
    /// no port of a bridge. They pass no queue, no filter and no counter of the device then. Default: true.
    pub redirect_peer: bool,
    /// The source addresses of packets by tunnels: one network for each family at most. Default: none, which stands
    /// for the source address of the route to the server.
    pub tunnel_sources: Vec<TunnelSource>,
    /// The first of [`PACKET_CHECK_MARK_COUNT`] firewall marks by which [checks](crate::engine::CheckMarks) reach servers: a multiple of that
    /// number. While a service has such checks, a rule leads this machine's packets with these marks to the
    /// loopback device, by a routing table with the number of the first mark. Nothing else may use the marks in the
    /// network namespace. Default: 1 819 688 960 (`0x6c76_4000`), behind those of [`IpvsSettings`](crate::ipvs::IpvsSettings).
    pub check_marks: NonZeroU32,
    /// The most new flows that the scheduler is asked for in a second, for each processor. A table decides
    /// those above; all of them with 0. Default: 100 000.
    pub decisions_per_second: u32,
    /// How long the program waits for a sign of life of this process, which gives one every fifth of this
    /// time, before a table decides new flows. Default: 1 s.
    pub alive_for: Duration,
    /// After this time without a packet an established TCP connection is forgotten. Default: 15 min.
    pub tcp_timeout: Duration,
    /// After this time without a packet a TCP connection is forgotten that has ended, or that the server has
    /// not answered. Default: 1 min.
    pub closing_timeout: Duration,
    /// After this time without a packet a UDP flow is forgotten. Default: 5 min.
    pub udp_timeout: Duration,
}

/// The letters "lv" in the upper half.
const DEFAULT_CHECK_MARKS: NonZeroU32 = NonZeroU32::new(0x6c76_4000).unwrap();

/// The number of firewall marks that an engine has for health checks, from [`PacketSettings::check_marks`] on: one for each
/// server.
pub const PACKET_CHECK_MARK_COUNT: u32 = super::layout::MAX_SERVERS;

impl PacketSettings {
    /// Returns the names of settings that have values which they may not have, each with what is expected.
    pub(crate) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !self.check_marks.get().is_multiple_of(PACKET_CHECK_MARK_COUNT) {
            let reason = format!("a multiple of {PACKET_CHECK_MARK_COUNT} is expected");
            problems.push(("check_marks", reason));
        }
        let is_left_out = |it: &&String| !self.devices.is_empty() && !self.devices.contains(it);
        if let Some(device) = self.xdp_devices.iter().find(is_left_out) {
            problems.push(("xdp_devices", format!("{device} is not among the devices")));
        }
        let is_ipv4 = |source: &&TunnelSource| source.network().is_ipv4();
        let of_ipv4 = self.tunnel_sources.iter().filter(is_ipv4).count();
        if of_ipv4 > 1 || self.tunnel_sources.len() - of_ipv4 > 1 {
            let reason = "one network of each family is expected".to_owned();
            problems.push(("tunnel_sources", reason));
        }
        problems
    }
}

impl Default for PacketSettings {
    fn default() -> Self {
        Self {
            pin_folder: default_pin_folder(),
            flows: 262_144,
            ipv6_flows: 131_072,
            devices: Vec::new(),
            xdp_devices: Vec::new(),
            xdp_mode: XdpMode::default(),
            redirect_peer: true,
            tunnel_sources: Vec::new(),
            check_marks: DEFAULT_CHECK_MARKS,
            decisions_per_second: 100_000,
            alive_for: Duration::from_secs(1),
            tcp_timeout: Duration::from_secs(15 * 60),
            closing_timeout: Duration::from_secs(60),
            udp_timeout: Duration::from_secs(5 * 60),
        }
    }
}

/// Returns the folder of the network namespace of the calling thread.
fn default_pin_folder() -> PathBuf {
    let namespace = std::fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
    // The link reads `net:[4026531840]`.
    let namespace = namespace.to_string_lossy();
    let number = namespace.trim_matches(|c: char| !c.is_ascii_digit());
    Path::new("/sys/fs/bpf/lvs").join(format!("net-{number}"))
}
