//! Counters and rates that the kernel keeps of a service, of a destination, and of all together.

use super::attribute::{AttributeList, AttributeType, IpvsDecodeError, attribute_types};

/// What the kernel counted of a service or of a destination.
///
/// The kernel adds the counters of its processors up, and estimates the rates, every two seconds: right
/// after traffic they may be less than what happened. Octets are those of layer 3. Outgoing packets are
/// seen with network address translation only.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct IpvsStats {
    /// Connections that were scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub incoming_packets: u64,
    /// Packets to clients.
    pub outgoing_packets: u64,
    /// Octets from clients.
    pub incoming_bytes: u64,
    /// Octets to clients.
    pub outgoing_bytes: u64,
    /// Connections a second.
    pub connection_rate: u64,
    /// Packets a second from clients.
    pub incoming_packet_rate: u64,
    /// Packets a second to clients.
    pub outgoing_packet_rate: u64,
    /// Octets a second from clients.
    pub incoming_byte_rate: u64,
    /// Octets a second to clients.
    pub outgoing_byte_rate: u64,
}

impl IpvsStats {
    /// Decodes the 64-bit counters of an object, or the 32-bit ones of a kernel before 4.1.
    pub(super) fn decode(
        object: &AttributeList<'_>,
        stats32: AttributeType,
        stats64: AttributeType,
    ) -> Result<Self, IpvsDecodeError> {
        if let Some(list) = object.nest(stats64)? {
            return Self::decode_with(&|kind| Ok(list.array(kind)?.map(u64::from_ne_bytes)));
        }
        let Some(list) = object.nest(stats32)? else { return Ok(Self::default()) };
        Self::decode_with(&|kind| match kind.number {
            // The octets have 64 bits in both.
            4 | 5 => Ok(list.array(kind)?.map(u64::from_ne_bytes)),
            _ => Ok(list.u32(kind)?.map(u64::from)),
        })
    }

    fn decode_with(
        counter: &dyn Fn(AttributeType) -> Result<Option<u64>, IpvsDecodeError>,
    ) -> Result<Self, IpvsDecodeError> {
        // One that is missing is one that the kernel does not have.
        let value = |kind| Ok(counter(kind)?.unwrap_or_default());
        Ok(Self {
            connections: value(IPVS_STATS_ATTR_CONNS)?,
            incoming_packets: value(IPVS_STATS_ATTR_INPKTS)?,
            outgoing_packets: value(IPVS_STATS_ATTR_OUTPKTS)?,
            incoming_bytes: value(IPVS_STATS_ATTR_INBYTES)?,
            outgoing_bytes: value(IPVS_STATS_ATTR_OUTBYTES)?,
            connection_rate: value(IPVS_STATS_ATTR_CPS)?,
            incoming_packet_rate: value(IPVS_STATS_ATTR_INPPS)?,
            outgoing_packet_rate: value(IPVS_STATS_ATTR_OUTPPS)?,
            incoming_byte_rate: value(IPVS_STATS_ATTR_INBPS)?,
            outgoing_byte_rate: value(IPVS_STATS_ATTR_OUTBPS)?,
        })
    }
}

attribute_types! {
    1 IPVS_STATS_ATTR_CONNS
    2 IPVS_STATS_ATTR_INPKTS
    3 IPVS_STATS_ATTR_OUTPKTS
    4 IPVS_STATS_ATTR_INBYTES
    5 IPVS_STATS_ATTR_OUTBYTES
    6 IPVS_STATS_ATTR_CPS
    7 IPVS_STATS_ATTR_INPPS
    8 IPVS_STATS_ATTR_OUTPPS
    9 IPVS_STATS_ATTR_INBPS
    10 IPVS_STATS_ATTR_OUTBPS
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::super::attribute::emit;
    use super::*;

    const STATS: AttributeType = AttributeType { number: 10, name: "STATS" };
    const STATS64: AttributeType = AttributeType { number: 12, name: "STATS64" };

    #[test]
    fn the_64_bit_counters_count_where_there_are_both() {
        let narrow = |number, value: u32| DefaultNla::new(number, value.to_ne_bytes().to_vec());
        let wide = |number, value: u64| DefaultNla::new(number, value.to_ne_bytes().to_vec());
        let stats = STATS.nest(&[narrow(1, 7), wide(4, 1 << 40), narrow(10, 9)]);
        let stats64 = STATS64.nest(&[wide(1, 1 << 33), wide(4, 1 << 40), wide(10, 1 << 35)]);
        let decode = |attributes: &[DefaultNla]| {
            let bytes = emit(attributes);
            IpvsStats::decode(&AttributeList::parse(&bytes).unwrap(), STATS, STATS64).unwrap()
        };
        let only32 = decode(std::slice::from_ref(&stats));
        let expected = IpvsStats {
            connections: 7,
            incoming_bytes: 1 << 40,
            outgoing_byte_rate: 9,
            ..IpvsStats::default()
        };
        assert_eq!(only32, expected);
        let expected = IpvsStats { connections: 1 << 33, outgoing_byte_rate: 1 << 35, ..expected };
        assert_eq!(decode(&[stats, stats64]), expected);
        assert_eq!(decode(&[]), IpvsStats::default());
    }
}
