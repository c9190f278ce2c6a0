//! The octets of a batch of flows.
//!
//! ```text
//! version (1)  flags (1: all flows begin; 2: all flows end)
//! number of services (2), each: protocol (1)  address
//! number of servers (2), each: service (2)  address
//! number of flows (2), each: server (2)  is open (1)  client's IP address (4 or 16)  client's port (2)
//! address: family (1: 4 or 6)  IP address (4 or 16)  port (2)
//! ```
//! Numbers are in network order. A server is that of one service; a client has the family of the virtual address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::flow_batch::{FlowBatch, SyncedFlow};
use crate::engine::EngineProtocol;
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP};

const VERSION: u8 = 1;
const BEGINS_ALL: u8 = 1;
const ENDS_ALL: u8 = 2;
const IPV4: u8 = 4;
const IPV6: u8 = 6;

/// Why octets are not a [`FlowBatch`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a batch of flows is not valid at octet {at}: {reason}")]
pub struct FlowBatchError {
    at: usize,
    reason: &'static str,
}

impl FlowBatch {
    /// Returns the octets of the batch: some 9 for each flow of IPv4, and 21 for each of IPv6. Flows beyond
    /// [`MAX_FLOWS`](Self::MAX_FLOWS) are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flows = &self.flows[..self.flows.len().min(Self::MAX_FLOWS)];
        let (mut services, mut servers) = (BTreeMap::new(), BTreeMap::new());
        // In the order of their numbers.
        let (mut service_octets, mut server_octets) = (Vec::new(), Vec::new());
        let mut flow_octets = Vec::with_capacity(flows.len() * 9);
        for flow in flows {
            let next = count(services.len());
            let service =
                *services.entry((flow.protocol, flow.virtual_address)).or_insert_with(|| {
                    service_octets.push(protocol_number(flow.protocol));
                    push_address(&mut service_octets, flow.virtual_address);
                    next
                });
            let next = count(servers.len());
            let server = *servers.entry((service, flow.server)).or_insert_with(|| {
                server_octets.extend(service.to_be_bytes());
                push_address(&mut server_octets, flow.server);
                next
            });
            flow_octets.extend(server.to_be_bytes());
            flow_octets.push(flow.is_open.into());
            push_ip(&mut flow_octets, flow.client.ip());
            flow_octets.extend(flow.client.port().to_be_bytes());
        }
        let flags =
            if self.begins_all { BEGINS_ALL } else { 0 } | if self.ends_all { ENDS_ALL } else { 0 };
        let mut octets = vec![VERSION, flags];
        for (number, part) in [
            (services.len(), service_octets),
            (servers.len(), server_octets),
            (flows.len(), flow_octets),
        ] {
            octets.extend(count(number).to_be_bytes());
            octets.extend(part);
        }
        octets
    }

    /// Reads the octets of a batch.
    ///
    /// # Errors
    /// The octets are of another version, are too few or too many, or are none that [`encode`](Self::encode) makes.
    pub fn parse(octets: &[u8]) -> Result<Self, FlowBatchError> {
        let mut reader = OctetReader { octets, at: 0 };
        if reader.u8()? != VERSION {
            return Err(reader.error("its version is another"));
        }
        let flags = reader.u8()?;
        if flags & !(BEGINS_ALL | ENDS_ALL) != 0 {
            return Err(reader.error("a flag is not known"));
        }
        let mut services = Vec::new();
        for _ in 0..reader.u16()? {
            let protocol = match reader.u8()? {
                PROTOCOL_TCP => EngineProtocol::Tcp,
                PROTOCOL_UDP => EngineProtocol::Udp,
                _ => return Err(reader.error("the protocol is neither TCP nor UDP")),
            };
            services.push((protocol, reader.address()?));
        }
        let mut servers = Vec::new();
        for _ in 0..reader.u16()? {
            let service = services.get(usize::from(reader.u16()?)).copied();
            let service = service.ok_or_else(|| reader.error("there is no such service"))?;
            servers.push((service, reader.address()?));
        }
        let len = usize::from(reader.u16()?);
        if len > Self::MAX_FLOWS {
            return Err(reader.error("there are more than 4096 flows"));
        }
        let mut flows = Vec::new();
        for _ in 0..len {
            let server = servers.get(usize::from(reader.u16()?)).copied();
            let (service, server) =
                server.ok_or_else(|| reader.error("there is no such server"))?;
            let (protocol, virtual_address) = service;
            let is_open = match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(reader.error("a flow is neither open nor closed")),
            };
            let family = if virtual_address.is_ipv4() { IPV4 } else { IPV6 };
            let client = SocketAddr::new(reader.ip(family)?, reader.u16()?);
            flows.push(SyncedFlow { protocol, virtual_address, server, client, is_open });
        }
        if reader.at < octets.len() {
            return Err(reader.error("there is something after the last flow"));
        }
        let (begins_all, ends_all) = (flags & BEGINS_ALL != 0, flags & ENDS_ALL != 0);
        Ok(Self { begins_all, ends_all, flows })
    }
}

/// There are no more servers than flows in a batch.
fn count(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

const fn protocol_number(protocol: EngineProtocol) -> u8 {
    match protocol {
        EngineProtocol::Tcp => PROTOCOL_TCP,
        EngineProtocol::Udp => PROTOCOL_UDP,
    }
}

fn push_ip(octets: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => octets.extend(address.octets()),
        IpAddr::V6(address) => octets.extend(address.octets()),
    }
}

fn push_address(octets: &mut Vec<u8>, address: SocketAddr) {
    octets.push(if address.is_ipv4() { IPV4 } else { IPV6 });
    push_ip(octets, address.ip());
    octets.extend(address.port().to_be_bytes());
}

/// Reads octets from the first to the last.
struct OctetReader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl OctetReader<'_> {
    const fn error(&self, reason: &'static str) -> FlowBatchError {
        FlowBatchError { at: self.at, reason }
    }

    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], FlowBatchError> {
        let found = self.octets.get(self.at..).and_then(|rest| rest.first_chunk::<LEN>());
        let found = *found.ok_or_else(|| self.error("it ends too early"))?;
        self.at += LEN;
        Ok(found)
    }

    fn u8(&mut self) -> Result<u8, FlowBatchError> {
        self.take::<1>().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Result<u16, FlowBatchError> {
        self.take().map(u16::from_be_bytes)
    }

    fn ip(&mut self, family: u8) -> Result<IpAddr, FlowBatchError> {
        match family {
            IPV4 => Ok(Ipv4Addr::from(self.take::<4>()?).into()),
            IPV6 => Ok(Ipv6Addr::from(self.take::<16>()?).into()),
            _ => Err(self.error("the family of an address is neither 4 nor 6")),
        }
    }

    fn address(&mut self) -> Result<SocketAddr, FlowBatchError> {
        let family = self.u8()?;
        Ok(SocketAddr::new(self.ip(family)?, self.u16()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(numbers: (bool, bool, u8, u8, u16, bool)) -> SyncedFlow {
        let (is_tcp, is_ipv4, virtual_address, server, port, is_open) = numbers;
        let address = |host: u8, port| {
            let ip: IpAddr = if is_ipv4 {
                [10, 0, 0, host].into()
            } else {
                [0xfd00_u16, 0, 0, 0, 0, 0, 0, host.into()].into()
            };
            SocketAddr::new(ip, port)
        };
        SyncedFlow {
            protocol: if is_tcp { EngineProtocol::Tcp } else { EngineProtocol::Udp },
            virtual_address: address(virtual_address % 3, 80),
            // A tunnel may lead to a server of the other family.
            server: if server % 5 == 0 {
                "192.0.2.1:80".parse().expect("it is")
            } else {
                address(server, 80)
            },
            client: address(9, port),
            is_open,
        }
    }

    proptest! {
        #[test]
        fn a_batch_returns_as_it_was(
            flows in prop::collection::vec(any::<(bool, bool, u8, u8, u16, bool)>(), 0..40),
            begins_all: bool,
            ends_all: bool,
        ) {
            let flows = flows.into_iter().map(flow).collect();
            let batch = FlowBatch { begins_all, ends_all, flows };
            let octets = batch.encode();
            prop_assert_eq!(FlowBatch::parse(&octets), Ok(batch));
            for len in 0..octets.len() {
                prop_assert!(FlowBatch::parse(&octets[..len]).is_err());
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let one = FlowBatch::changes(vec![flow((true, true, 1, 1, 5000, true))]).encode();
        let changed = |at: usize, octet: u8| {
            let mut octets = one.clone();
            octets[at] = octet;
            FlowBatch::parse(&octets).expect_err("it is wrong").to_string()
        };
        let reason = |at, text| format!("a batch of flows is not valid at octet {at}: {text}");
        assert_eq!(changed(0, 2), reason(1, "its version is another"));
        assert_eq!(changed(1, 4), reason(2, "a flag is not known"));
        assert_eq!(changed(4, 1), reason(5, "the protocol is neither TCP nor UDP"));
        assert_eq!(changed(5, 5), reason(6, "the family of an address is neither 4 nor 6"));
        assert_eq!(changed(15, 1), reason(16, "there is no such service"));
        assert_eq!(changed(23, 255), reason(25, "there are more than 4096 flows"));
        assert_eq!(changed(26, 1), reason(27, "there is no such server"));
        assert_eq!(changed(27, 2), reason(28, "a flow is neither open nor closed"));
        let longer = [&one[..], &[0]].concat();
        let error = FlowBatch::parse(&longer).expect_err("it is wrong").to_string();
        assert_eq!(error, reason(one.len(), "there is something after the last flow"));
        assert_eq!(one.len(), 34);
    }
}
