//! A network namespace in which the XDP program finds next hops: to clients by the loopback device, at which
//! frames come in, and to servers by the tap device.

use std::fs::{self, File};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::model_state::TEST_DEVICE;
use crate::packet::layout::{
    RawXdpDevice, XDP_DEVICE_REDIRECTS, XDP_DEVICE_SENDS, XDP_DEVICE_SLOTS,
};
use crate::packet::maps::PacketMaps;
use crate::rtnetlink::RtnetlinkSocket;

/// The neighbour of each device: the loopback device, and the tap device.
const NEIGHBOURS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// `XDP_TX` and `XDP_REDIRECT` of `uapi/linux/bpf.h`.
const FRAME_RETURN: u32 = 3;
const FRAME_REDIRECT: u32 = 4;

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// Moves the thread to a network namespace of its own. Only root may.
pub(super) fn enter_namespace() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("a network namespace: {error}"))?;
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/all/forwarding");
        fs::write(&path, "1").map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// The devices at which frames are carried.
pub(super) struct XdpNetwork {
    tap_mac: [u8; 6],
    /// It is there as long as this.
    _tap: File,
}

impl XdpNetwork {
    /// Makes routes by both devices, and lets the program know them.
    pub(super) fn set_up(tap: (u32, &str, File), maps: &mut PacketMaps) -> Self {
        let device = RtnetlinkSocket::open().and_then(|mut netlink| {
            netlink.set_up(tap.0)?;
            netlink.device(tap.1)
        });
        let tap_mac = device.expect("the tap device").mac.try_into().expect("it has Ethernet");
        // The kernel tells of an MTU in 16 bits.
        ip("link set lo up mtu 65000");
        for (device, [.., mac]) in ["lo", tap.1].into_iter().zip(NEIGHBOURS) {
            let metric = mac;
            ip(&format!("route add default via 10.254.0.1 dev {device} metric {metric} onlink"));
            ip(&format!(
                "neigh add 10.254.0.1 lladdr 02:00:00:00:00:0{mac} dev {device} nud permanent"
            ));
        }
        ip(&format!("-6 route add default via fe80::1 dev {}", tap.1));
        ip(&format!("-6 neigh add fe80::1 lladdr 02:00:00:00:00:02 dev {} nud permanent", tap.1));
        // Clients, and the servers of a network of the director; others are behind routers.
        ip("-6 route add fd01::/64 dev lo metric 1");
        ip(&format!("route add 10.2.0.0/24 dev {}", tap.1));
        ip(&format!("-6 route add fd02::/64 dev {} metric 1", tap.1));
        for host in 2..8 {
            for (address, mac, device) in
                [("fd01::", 1, "lo"), ("fd02::", 2, tap.1), ("10.2.0.", 2, tap.1)]
            {
                let mac = format!("02:00:00:00:00:0{mac}");
                ip(&format!("neigh add {address}{host} lladdr {mac} dev {device} nud permanent"));
            }
        }
        for (index, mac) in [(TEST_DEVICE, [0; 6]), (tap.0, tap_mac)] {
            let device = RawXdpDevice {
                ifindex: index,
                mac,
                flags: XDP_DEVICE_REDIRECTS | XDP_DEVICE_SENDS,
            };
            maps.set_xdp_device(index % XDP_DEVICE_SLOTS, &device).expect("a device");
        }
        Self { tap_mac, _tap: tap.2 }
    }

    /// Checks that a frame has the addresses of its next hop, and returns it with those that it had.
    pub(super) fn check(&self, verdict: u32, before: &[u8], mut after: Vec<u8>) -> Vec<u8> {
        let addresses = match verdict {
            FRAME_RETURN => [NEIGHBOURS[0], [0; 6]].concat(),
            FRAME_REDIRECT => [NEIGHBOURS[1], self.tap_mac].concat(),
            other => panic!("verdict {other}"),
        };
        assert_eq!(after[..12], addresses, "the addresses of the frame");
        after[..12].copy_from_slice(&before[..12]);
        after
    }
}
