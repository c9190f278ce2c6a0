//! Random packets: valid ones of every kind, and such in which something is wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fastrand::Rng;

use super::frames::{
    ACK, ETHERNET_LEN, FIN, IPV4_LEN, IPV6_LEN, RST, SYN, fragments, frame, icmp, quote,
    tcp_with_payload, udp, with_extensions, with_hop_limit,
};
use super::model::ProgramModel;
use super::parsed::PacketKey;
use crate::packet::layout::PROTOCOL_TCP;

const HOSTS: u8 = 6;
const PORTS: u16 = 8;

pub(super) struct PacketGenerator {
    pub(super) random: Rng,
    /// Each with its protocol.
    services: Vec<(SocketAddr, u8)>,
    /// Fragments of which others came already.
    fragments: Vec<Vec<u8>>,
}

impl PacketGenerator {
    pub(super) fn new(random: Rng, model: &ProgramModel) -> Self {
        let mut services: Vec<_> = model.services.keys().copied().collect();
        services.sort_unstable();
        Self { random, services, fragments: Vec::new() }
    }

    fn is_one_in(&mut self, cases: u8) -> bool {
        self.random.u8(..cases) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.usize(..of.len())]
    }

    fn host(&mut self, is_ipv4: bool, network: u8) -> IpAddr {
        let host = self.random.u8(2..2 + HOSTS);
        if is_ipv4 {
            return Ipv4Addr::new(10, network, 0, host).into();
        }
        Ipv6Addr::new(0xfd00 | u16::from(network), 0, 0, 0, 0, 0, 0, host.into()).into()
    }

    fn client(&mut self, is_ipv4: bool) -> SocketAddr {
        SocketAddr::new(self.host(is_ipv4, 1), self.random.u16(5000..5000 + PORTS))
    }

    /// Returns a packet as a client sends it to a service.
    fn request(&mut self) -> PacketKey {
        let services = self.services.clone();
        let (service, protocol) = self.pick(&services);
        (self.client(service.is_ipv4()), service, protocol)
    }

    /// Returns one direction of a flow, if there is one.
    fn known(&mut self, model: &ProgramModel) -> Option<PacketKey> {
        let (client, service, protocol) = self.request();
        let is_back = self.random.bool();
        let begin = if is_back {
            (SocketAddr::new(self.host(service.is_ipv4(), 2), 0), client, protocol)
        } else {
            (client, service, protocol)
        };
        model.flows.range(begin..).next().map(|(key, _)| *key)
    }

    fn payload(&mut self) -> Vec<u8> {
        // Some are too long for a device.
        let len = match self.random.u8(..16) {
            0 => self.random.usize(1400..1500),
            1 | 2 => self.random.usize(..1400),
            _ => self.random.usize(..20),
        };
        std::iter::repeat_with(|| self.random.u8(..)).take(len).collect()
    }

    fn segment(&mut self, (source, destination, protocol): PacketKey, is_first: bool) -> Vec<u8> {
        let payload = self.payload();
        if protocol == PROTOCOL_TCP {
            let later = [SYN, SYN | ACK, ACK, ACK, ACK | FIN, FIN, RST, RST | ACK];
            let flags = match self.random.u8(..20) {
                0 => self.random.u8(..),
                1..16 if is_first => SYN,
                _ => self.pick(&later),
            };
            return tcp_with_payload(source, destination, flags, &payload);
        }
        let mut datagram = udp(source, destination, &payload);
        if self.is_one_in(5) {
            let at = datagram.len() - payload.len() - 2;
            datagram[at..at + 2].fill(0);
        }
        datagram
    }

    /// Returns an ICMP error about a packet of a flow, as the program, or the server itself, has sent it.
    fn error(&mut self, model: &ProgramModel) -> Option<Vec<u8>> {
        let key = self.known(model)?;
        let flow = &model.flows[&key];
        let (source, destination) =
            if flow.is_direct() { (key.1, key.0) } else { (flow.source, flow.destination) };
        let sent = self.segment((source, destination, key.2), false);
        let is_ipv4 = source.is_ipv4();
        let end = destination.ip();
        let from = if self.random.bool() { end } else { self.host(is_ipv4, 7) };
        let kinds: &[u8] = if is_ipv4 { &[3, 3, 4, 11, 12, 0, 5] } else { &[1, 2, 3, 4, 0, 129] };
        let quoted = if self.random.bool() { quote(&sent) } else { &sent[ETHERNET_LEN..] };
        Some(icmp(from, source.ip(), self.pick(kinds), quoted))
    }

    fn passing(&mut self) -> Vec<u8> {
        let is_ipv4 = self.random.bool();
        let (source, destination) = (self.client(is_ipv4), self.client(is_ipv4));
        let payload = self.payload();
        match self.random.u8(..3) {
            0 => frame(source.ip(), destination.ip(), self.random.u8(..), &payload),
            1 => udp(source, destination, &payload),
            _ => tcp_with_payload(source, destination, SYN, &payload),
        }
    }

    /// Returns the next frame that a device receives.
    pub(super) fn next_frame(&mut self, model: &ProgramModel) -> Vec<u8> {
        let kind = self.random.u8(..20);
        let known = if kind < 17 { self.known(model) } else { None };
        let mut frame = match (kind, known) {
            (0..10, Some(key)) => self.segment(key, false),
            (10..14, _) => self.error(model).unwrap_or_else(|| self.passing()),
            (19, _) => self.passing(),
            _ => {
                let request = self.request();
                self.segment(request, true)
            }
        };
        if !self.fragments.is_empty() && self.is_one_in(4) {
            let next = self.random.usize(..self.fragments.len());
            frame = self.fragments.swap_remove(next);
        } else if kind < 10 && self.is_one_in(6) {
            let len = 8 * self.random.usize(1..6);
            // Of few numbers, so that packets meet.
            let id = self.random.u16(..4);
            self.fragments = fragments(&frame, id, len);
            frame = self.fragments.remove(0);
        } else if frame[12] == 0x86 && self.is_one_in(3) {
            let numbers = if self.is_one_in(8) { [0, 43, 44] } else { [0, 60, 60] };
            let count = self.random.usize(1..6);
            let chain: Vec<_> =
                (0..count).map(|_| (self.pick(&numbers), self.random.usize(1..4))).collect();
            frame = with_extensions(&frame, &chain);
        }
        if self.is_one_in(20) {
            frame = with_hop_limit(&frame, self.random.u8(..3));
        }
        if self.random.u8(..10) < 4 {
            for _ in 0..self.random.u8(1..4) {
                self.spoil(&mut frame);
            }
        }
        // The kernel runs no program on a shorter one.
        let least = match frame[12..14] {
            [0x08, 0x00] => ETHERNET_LEN + IPV4_LEN,
            [0x86, 0xdd] => ETHERNET_LEN + IPV6_LEN,
            _ => ETHERNET_LEN + 1,
        };
        if frame.len() < least {
            frame.resize(least, 0);
        }
        frame
    }

    /// Makes something wrong.
    fn spoil(&mut self, frame: &mut Vec<u8>) {
        let headers = frame.len().min(130);
        let at = self.random.usize(ETHERNET_LEN..headers.max(ETHERNET_LEN + 1));
        let is_ipv4 = frame[12] == 0x08;
        match self.random.u8(..12) {
            0 | 1 => frame[at] ^= 1 << self.random.u8(..8),
            2 => frame[at] = self.random.u8(..),
            3 => frame[at] = self.pick(&[0, 1, 4, 6, 8, 17, 0x40, 0x45, 0x50, 0x60, 0x7f, 0xff]),
            4 => frame.truncate(self.random.usize(ETHERNET_LEN..frame.len())),
            5 => frame
                .truncate(frame.len() - self.random.usize(..20.min(frame.len() - ETHERNET_LEN))),
            6 => {
                // Frames for tests have some 3500 octets at most.
                let len = self.random.usize(..200);
                frame.extend(std::iter::repeat_with(|| self.random.u8(..)).take(len));
            }
            7 | 8 => {
                // The length of IP, by a little.
                let at = ETHERNET_LEN + if is_ipv4 { 2 } else { 4 };
                let len = u16::from_be_bytes([frame[at], frame[at + 1]]);
                let len = match self.random.u8(..6) {
                    0 => 0,
                    1 => self.random.u16(..),
                    _ => len.wrapping_add(self.random.u16(..40)).wrapping_sub(20),
                };
                frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
            }
            9 => {
                let at = ETHERNET_LEN + if is_ipv4 { 9 } else { 6 };
                frame[at] = self.pick(&[0, 1, 6, 17, 43, 44, 50, 58, 60]);
            }
            10 if is_ipv4 => frame[ETHERNET_LEN + 6] = self.pick(&[0, 0x20, 0x40, 0x60, 0x80, 1]),
            10 => frame[ETHERNET_LEN] = self.random.u8(..),
            _ => frame[self.random.usize(..ETHERNET_LEN)] = self.random.u8(..),
        }
        // What follows reads the header of Ethernet, and some of that of IP.
        if frame.len() < ETHERNET_LEN + IPV4_LEN {
            frame.resize(ETHERNET_LEN + IPV4_LEN, 0);
        }
    }
}
