//! Turns DNS answers into members. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::backend::Spec;

/// The addresses of a name, and their lowest TTL.
#[derive(Debug)]
pub(super) struct ResolvedAddresses {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// An SRV record.
#[derive(Clone, Debug)]
pub(super) struct SrvRecord {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// An SRV record with the addresses of its target.
#[derive(Clone, Copy, Debug)]
pub(super) struct SrvTarget<'a> {
    pub(super) record: &'a SrvRecord,
    pub(super) addresses: &'a [IpAddr],
}

/// Returns the members at the addresses of a name, sorted because name servers shuffle answers.
pub(super) fn specs_from_addresses(addresses: &[IpAddr], port: u16) -> Vec<Spec<SocketAddr>> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(|address| Spec::from(SocketAddr::new(address, port))).collect()
}

/// Returns the members at the targets of SRV records.
pub(super) fn specs_from_targets(targets: &[SrvTarget<'_>]) -> Vec<Spec<SocketAddr>> {
    // From all records: a target that has no address for a while must not change the tiers.
    let mut priorities: Vec<u16> = targets.iter().map(|target| target.record.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();

    let mut members: BTreeMap<SocketAddr, (u16, u16)> = BTreeMap::new();
    for SrvTarget { record, addresses } in targets {
        for &address in *addresses {
            let address = SocketAddr::new(address, record.port);
            let (priority, weight) = (record.priority, record.weight);
            let best = members.entry(address).or_insert((priority, weight));
            if priority < best.0 || (priority == best.0 && weight > best.1) {
                *best = (priority, weight);
            }
        }
    }
    let member = |(address, (priority, weight)): (SocketAddr, (u16, u16))| {
        let rank = priorities.binary_search(&priority).unwrap_or_default();
        Spec::from(address)
            .tier(u8::try_from(rank).unwrap_or(u8::MAX))
            .weight(u32::from(weight.max(1)))
    };
    members.into_iter().map(member).collect()
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn srv(priority: u16, weight: u16, port: u16) -> SrvRecord {
        SrvRecord { priority, weight, port, target: String::new() }
    }

    fn attributes(specs: &[Spec<SocketAddr>]) -> Vec<(String, u8, u32)> {
        specs.iter().map(|spec| (spec.id.to_string(), spec.tier, spec.weight)).collect()
    }

    #[test]
    fn priorities_become_dense_tiers_and_weight_0_becomes_1() {
        let addresses: [[IpAddr; 1]; 3] =
            [[[10, 0, 0, 1].into()], [[10, 0, 0, 2].into()], [[10, 0, 0, 3].into()]];
        let records = [srv(70, 0, 1), srv(5, 65535, 2), srv(20, 7, 3)];
        let targets: Vec<SrvTarget<'_>> = records
            .iter()
            .zip(&addresses)
            .map(|(record, addresses)| SrvTarget { record, addresses })
            .collect();
        let expected = [
            ("10.0.0.1:1".into(), 2, 1),
            ("10.0.0.2:2".into(), 0, 65535),
            ("10.0.0.3:3".into(), 1, 7),
        ];
        assert_eq!(attributes(&specs_from_targets(&targets)), expected);
    }

    #[test]
    fn an_address_of_several_records_counts_once_by_priority_and_then_by_weight() {
        let address: [IpAddr; 1] = [[10, 0, 0, 1].into()];
        let records = [srv(2, 9, 1), srv(1, 3, 1), srv(1, 5, 1)];
        let target = |record| SrvTarget { record, addresses: &address };
        let targets: Vec<SrvTarget<'_>> = records.iter().map(target).collect();
        assert_eq!(attributes(&specs_from_targets(&targets)), [("10.0.0.1:1".into(), 0, 5)]);
    }

    #[test]
    fn priorities_beyond_the_last_tier_share_it() {
        let address: [IpAddr; 1] = [[10, 0, 0, 1].into()];
        let records: Vec<SrvRecord> = (0..300).map(|n| srv(n, 1, n + 1)).collect();
        let targets: Vec<SrvTarget<'_>> =
            records.iter().map(|record| SrvTarget { record, addresses: &address }).collect();
        let tiers: Vec<u8> = specs_from_targets(&targets).iter().map(|spec| spec.tier).collect();
        assert_eq!((tiers[254], tiers[255], tiers[299]), (254, 255, 255));
    }

    #[test]
    fn addresses_are_sorted_and_counted_once() {
        let addresses = ["::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        let names: Vec<String> =
            specs_from_addresses(&addresses, 80).iter().map(|spec| spec.id.to_string()).collect();
        assert_eq!(names, ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]);
    }
}
