use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn each_client_has_its_own_limit() {
    let clients = ClientLimits::builder(2).build();
    let held = [clients.try_acquire(ip("192.0.2.1")), clients.try_acquire(ip("192.0.2.1"))];
    assert!(held.iter().all(Option::is_some));
    assert!(clients.try_acquire(ip("192.0.2.1")).is_none());
    let neighbour = clients.try_acquire(ip("192.0.2.2"));
    assert!(neighbour.is_some());
    assert_eq!((clients.connections(ip("192.0.2.1")), clients.networks()), (2, 2));

    let [first, second] = held;
    drop(first);
    assert!(clients.try_acquire(ip("192.0.2.1")).is_some());
    drop(second);
    assert_eq!((clients.connections(ip("192.0.2.1")), clients.networks()), (0, 1));
}

#[test]
fn an_ipv6_client_is_its_64_and_a_mapped_address_is_an_ipv4_client() {
    let clients = ClientLimits::builder(1).build();
    let held =
        [clients.try_acquire(ip("2001:db8::1")), clients.try_acquire(ip("::ffff:192.0.2.1"))];
    assert!(held.iter().all(Option::is_some));
    assert!(clients.try_acquire(ip("2001:db8::ffff:1")).is_none());
    assert!(clients.try_acquire(ip("2001:db8:0:1::1")).is_some());
    assert!(clients.try_acquire(ip("192.0.2.1")).is_none());
}

#[test]
fn prefixes_mask_the_address() {
    for (ipv4, ipv6, client, network) in [
        (24, 64, "10.1.2.3", "10.1.2.0"),
        (0, 64, "10.1.2.3", "0.0.0.0"),
        (32, 64, "10.1.2.3", "10.1.2.3"),
        (32, 48, "1:2:3:4:5:6:7:8", "1:2:3::"),
        (32, 0, "1::1", "::"),
        (32, 128, "1::1", "1::1"),
    ] {
        let builder = ClientLimits::builder(1).prefixes(ClientPrefixes { ipv4, ipv6 });
        assert_eq!(builder.network(ip(client)), ip(network), "/{ipv4} and /{ipv6}");
    }
}

#[test]
fn a_full_table_refuses_only_new_networks() {
    let clients = ClientLimits::builder(u32::MAX).capacity(SHARDS).build();
    let held: Vec<_> =
        (0..4096_u32).filter_map(|n| clients.try_acquire(Ipv4Addr::from(n).into())).collect();
    assert_eq!((held.len(), clients.networks()), (SHARDS, SHARDS));
    for permit in &held {
        assert!(clients.try_acquire(permit.network).is_some());
    }
}

#[test]
fn the_memory_of_a_flood_is_freed() {
    let clients = ClientLimits::builder(1).build();
    let memory = || -> usize { clients.shards.iter().map(|shard| lock(shard).capacity()).sum() };
    let held: Vec<_> =
        (0..100_000_u32).map(|n| clients.try_acquire(Ipv4Addr::from(n).into())).collect();
    assert!(memory() >= 100_000);
    drop(held);
    assert_eq!(clients.networks(), 0);
    assert!(
        memory() <= SHARDS * MIN_SHRINK_CAPACITY * 2,
        "capacity for {} networks is kept",
        memory()
    );
}

#[test]
fn threads_together_never_exceed_the_limit() {
    const LIMIT: u32 = 3;
    let clients = ClientLimits::builder(LIMIT).build();
    let held: [AtomicU32; 4] = Default::default();
    thread::scope(|scope| {
        for thread in 0..8_usize {
            let (clients, held) = (&clients, &held);
            scope.spawn(move || {
                for turn in 0..5_000 {
                    let client = (thread + turn) % held.len();
                    let address = IpAddr::from([192, 0, 2, client as u8]);
                    if let Some(permit) = clients.try_acquire(address) {
                        assert!(held[client].fetch_add(1, Ordering::SeqCst) < LIMIT);
                        thread::yield_now();
                        held[client].fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                }
            });
        }
    });
    assert_eq!(clients.networks(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// Compares with a list of the permits that are held.
    #[test]
    fn the_table_agrees_with_the_permits_held(
        limit in 1_u32..4,
        steps in prop::collection::vec((0_u8..6, any::<bool>(), any::<prop::sample::Index>()), 0..200),
    ) {
        let clients = ClientLimits::builder(limit).prefixes(ClientPrefixes { ipv4: 31, ipv6: 64 }).build();
        let mut held: Vec<(u8, ClientPermit)> = Vec::new();
        for (host, is_acquire, index) in steps {
            let network = host / 2;
            if is_acquire {
                let before = held.iter().filter(|(holder, _)| *holder == network).count() as u32;
                let permit = clients.try_acquire(IpAddr::from([10, 0, 0, host]));
                prop_assert_eq!(permit.is_some(), before < limit);
                held.extend(permit.map(|permit| (network, permit)));
            } else if !held.is_empty() {
                drop(held.swap_remove(index.index(held.len())));
            }
            for network in 0..3_u8 {
                let expected = held.iter().filter(|(holder, _)| *holder == network).count() as u32;
                prop_assert_eq!(clients.connections(IpAddr::from([10, 0, 0, network * 2])), expected);
            }
        }
    }
}
