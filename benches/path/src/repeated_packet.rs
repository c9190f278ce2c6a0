//! The packets that the packet engine's program is run on.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};

/// The octets of a packet's headers, as of the packet: it has no data.
pub(crate) const PACKET_LEN: u64 = 40;
pub(crate) const HEADERS_LEN: usize = PACKET_LEN as usize;
const ETHERNET_LEN: usize = 14;
const FRAME_LEN: usize = ETHERNET_LEN + HEADERS_LEN;
const TCP_SYN: u8 = 2;
const TCP_ACK: u8 = 16;

/// Where a program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hook {
    /// At the ingress of a device.
    Tc,
    /// At the driver of a device.
    Xdp,
}

impl Hook {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "XDP",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let hook = [Self::Tc, Self::Xdp].into_iter().find(|it| it.name() == name);
        hook.with_context(|| format!("no hook {name}"))
    }

    /// Returns the verdict on a packet that the program has carried: `TC_ACT_REDIRECT` (`uapi/linux/pkt_cls.h`) and
    /// `XDP_REDIRECT` (`uapi/linux/bpf.h`).
    pub(crate) fn redirect_verdict(self) -> u32 {
        match self {
            Self::Tc => 7,
            Self::Xdp => 4,
        }
    }

    /// Returns the verdict of a program without an opinion: `TC_ACT_UNSPEC` and `XDP_PASS`.
    pub(crate) fn next_verdict(self) -> u32 {
        match self {
            Self::Tc => -1_i32 as u32,
            Self::Xdp => 2,
        }
    }

    /// Returns the context of a packet that a device has received: the first fields of `struct __sk_buff`, or
    /// `struct xdp_md` (`uapi/linux/bpf.h`).
    pub(crate) fn context(self, device: u32) -> Vec<u8> {
        let words: &[u32] = match self {
            // `ifindex` is the eleventh; the kernel takes no others.
            Self::Tc => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, device],
            // From `data` to `data_end`, without metadata, and the first queue.
            Self::Xdp => &[0, FRAME_LEN as u32, 0, device, 0, 0],
        };
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

/// The packets of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RepeatedPacket {
    /// The first of a connection.
    Open,
    /// To the server.
    Request,
    /// To the client.
    Answer,
    /// To the server, for a program that does nothing with it.
    Nothing,
}

impl RepeatedPacket {
    pub(crate) const ALL: [Self; 4] = [Self::Open, Self::Request, Self::Answer, Self::Nothing];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Nothing => "nothing",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let packet = Self::ALL.into_iter().find(|it| it.name() == name);
        packet.with_context(|| format!("no packet {name}"))
    }

    /// Returns the headers. The end of the client is left open; checksums are adjusted by what changes, and may be wrong.
    pub(crate) fn headers(self, listen: SocketAddrV4, server: SocketAddrV4) -> [u8; HEADERS_LEN] {
        let client = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let (source, destination, flags) = match self {
            Self::Open => (client, listen, TCP_SYN),
            Self::Answer => (server, client, TCP_ACK),
            Self::Request | Self::Nothing => (client, listen, TCP_ACK),
        };
        let mut headers = [0; HEADERS_LEN];
        // IPv4: version and length, total length, time to live, protocol.
        headers[0] = 0x45;
        headers[3] = PACKET_LEN as u8;
        (headers[8], headers[9]) = (64, 6);
        headers[12..16].copy_from_slice(&source.ip().octets());
        headers[16..20].copy_from_slice(&destination.ip().octets());
        // TCP: ports, length, flags.
        headers[20..22].copy_from_slice(&source.port().to_be_bytes());
        headers[22..24].copy_from_slice(&destination.port().to_be_bytes());
        (headers[32], headers[33]) = (0x50, flags);
        headers
    }
}

/// Returns a frame with these headers to a hardware address.
pub(crate) fn frame(mac: [u8; 6], headers: [u8; HEADERS_LEN]) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&mac);
    // The type: IPv4.
    frame[12] = 8;
    frame[ETHERNET_LEN..].copy_from_slice(&headers);
    frame
}
