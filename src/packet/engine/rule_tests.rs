//! Keyed schedulers: the table in the kernel decides as the picker does.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use super::server_slots::ServerSlots;
use super::virtual_service::PacketVirtualService;
use crate::backend::{BackendSet, Health, Limits, Spec};
use crate::balancer::Balancer;
use crate::engine::{EngineAddress, EnginePersistence, EngineProtocol, EngineRequest};
use crate::packet::layout::{PROTOCOL_TCP, RawServiceKey, SERVICE_IS_KEYED, event_kind};
use crate::packet::model_tests::{ComparedProgram, SYN, tcp};
use crate::packet::statistics::PacketStatistics;
use crate::scheduler::{Flow, parse};

const SERVICES: [&str; 2] = ["10.9.0.1:80", "[fd09::1]:80"];

/// A service of the engine in the kernel, without the engine's thread.
struct KeyedService {
    program: ComparedProgram,
    servers: ServerSlots,
    service: PacketVirtualService,
    set: BackendSet<SocketAddr>,
    balancer: Balancer<SocketAddr>,
    address: SocketAddr,
}

impl KeyedService {
    /// Makes a service with servers of different weights; `None` where programs cannot be loaded.
    fn new(scheduler: &str, address: &str, servers: u8) -> Option<Self> {
        let program = ComparedProgram::load()?;
        let address: SocketAddr = address.parse().expect("an address");
        let set = BackendSet::new();
        for n in 1..=servers {
            let target = match address {
                SocketAddr::V4(_) => format!("10.2.0.{n}:8080"),
                SocketAddr::V6(_) => format!("[fd02::{n:x}]:8080"),
            };
            let target: SocketAddr = target.parse().expect("an address");
            let weight = 1 + u32::from(n % 5);
            set.insert(Spec::new(target.to_string(), target).weight(weight)).expect("a server");
        }
        let balancer =
            Balancer::new(&set, parse(scheduler).expect("a scheduler")).expect("a balancer");
        let service = service(address, &balancer, |_| {});
        let servers = ServerSlots::read(&program.maps).expect("the maps");
        Some(Self { program, servers, service, set, balancer, address })
    }

    fn reconcile(&mut self) {
        let (maps, servers) = (&mut self.program.maps, &mut self.servers);
        self.service.reconcile(maps, servers).expect("the maps take it");
        for index in self.service.server_indexes() {
            servers.update(maps, index, |raw| raw.ifindex = 1).expect("the maps take it");
        }
    }

    fn is_keyed(&self) -> bool {
        self.service.published_flags() & SERVICE_IS_KEYED != 0
    }

    /// Compares the decisions for some clients from an address on, which have no flows yet, and returns how many the table left open.
    fn compare(&mut self, first: IpAddr, clients: Range<u32>) -> u32 {
        let mut left_open = 0;
        let before = PacketStatistics::read(&self.program.maps).expect("the statistics");
        let keys = clients.len() as u32;
        for n in clients {
            let client = client(first, n);
            let frame = tcp(client, self.address, SYN);
            self.program.program.test_run(&frame);
            // Others tell of earlier clients, which are forgotten: they have never come back.
            let mut events = std::iter::from_fn(|| self.program.maps.next_event());
            let event = events.find(|event| event.kind == event_kind::DECIDED);
            let flow = Flow::from(client).destination(self.address);
            let picked = self.balancer.pick(&flow).ok().map(|lease| *lease.backend().target());
            match event {
                Some(event) => {
                    let server = self.servers.get(event.server).expect("a server");
                    assert_eq!(Some(server.raw.address()), picked, "{client}");
                }
                None => left_open += 1,
            }
        }
        let after = PacketStatistics::read(&self.program.maps).expect("the statistics");
        let decided = after.keyed_decisions - before.keyed_decisions;
        assert_eq!(decided, u64::from(keys - left_open));
        assert_eq!(
            after.refused_without_server - before.refused_without_server,
            u64::from(left_open)
        );
        left_open
    }
}

fn service(
    address: SocketAddr,
    balancer: &Balancer<SocketAddr>,
    change: impl FnOnce(&mut EngineRequest),
) -> PacketVirtualService {
    let engine_address = EngineAddress::Socket { protocol: EngineProtocol::Tcp, address };
    let mut request = EngineRequest::new("web", engine_address, balancer.clone(), "");
    change(&mut request);
    let key = RawServiceKey::new(address, PROTOCOL_TCP);
    PacketVirtualService::new(key, 0, Box::new(request), Arc::default()).expect("a service")
}

/// Returns the `n`-th client: addresses near each other, and ports that repeat.
fn client(first: IpAddr, n: u32) -> SocketAddr {
    let port = 1024 + (n.wrapping_mul(7919) % 60_000) as u16;
    match first {
        IpAddr::V4(first) => SocketAddr::new(IpAddr::V4((u32::from(first) + n).into()), port),
        IpAddr::V6(first) => {
            let n = u128::from(n);
            // Both halves of the address change.
            SocketAddr::new(IpAddr::V6((u128::from(first) + (n << 64) + n / 3).into()), port)
        }
    }
}

/// Compares with all servers, and with some that are down, have no weight or are drained.
fn decides_as_the_picker(scheduler: &str, keys: u32) {
    for (address, first) in SERVICES.into_iter().zip(["20.0.0.0", "2001:db8::"]) {
        let Some(mut service) = KeyedService::new(scheduler, address, 20) else { return };
        let first: IpAddr = first.parse().expect("an address");
        service.reconcile();
        assert!(service.is_keyed(), "{scheduler}");
        assert_eq!(service.compare(first, 0..keys), 0, "{scheduler}: all are well");
        let ids: Vec<_> =
            service.set.snapshot().backends().iter().map(|it| it.id().clone()).collect();
        for id in &ids[..4] {
            service.set.set_health(id, Health::Down).expect("known");
        }
        service.set.drain(&ids[5]).expect("known");
        service.set.set_weight(&ids[6], 0).expect("known");
        service.reconcile();
        assert!(service.is_keyed(), "{scheduler}");
        let left_open = service.compare(first, keys..2 * keys);
        // Those of the server without weight, which IPVS refuses, and those whose search is longer.
        assert!(left_open < keys / 8, "{scheduler}: {left_open} of {keys}");
    }
}

/// With the others, a million keys in all.
#[test]
fn maglev_decides_as_the_picker() {
    decides_as_the_picker("maglev", 100_000);
    decides_as_the_picker("maglev(size=251, seed=7)", 15_000);
}

#[test]
fn mh_decides_as_the_picker() {
    decides_as_the_picker("mh", 30_000);
    decides_as_the_picker("mh(mh-fallback)", 20_000);
    decides_as_the_picker("mh(mh-port, mh-fallback)", 20_000);
}

#[test]
fn sh_and_dh_decide_as_the_picker() {
    decides_as_the_picker("sh", 15_000);
    decides_as_the_picker("sh(sh-fallback)", 15_000);
    decides_as_the_picker("sh(sh-port, sh-fallback)", 10_000);
    decides_as_the_picker("dh", 1_000);
}

#[test]
fn rendezvous_decides_as_the_picker_by_its_table() {
    decides_as_the_picker("rendezvous(table)", 25_000);
}

#[test]
fn the_director_decides_what_a_table_cannot() {
    // Rules without a table of their own, and rules around them.
    for scheduler in ["wlc", "ring", "rendezvous", "bounded(maglev)", "priority(maglev)"] {
        let Some(mut service) = KeyedService::new(scheduler, SERVICES[0], 3) else { return };
        service.reconcile();
        assert!(!service.is_keyed(), "{scheduler}");
    }
    let Some(mut keyed) = KeyedService::new("maglev", SERVICES[0], 3) else { return };
    keyed.reconcile();
    assert!(keyed.is_keyed());
    let id = keyed.set.snapshot().backends()[0].id().clone();
    keyed.set.set_limits(&id, Limits::new(7)).expect("known");
    keyed.reconcile();
    assert!(!keyed.is_keyed(), "a limit");
    keyed.set.set_limits(&id, Limits::NONE).expect("known");
    keyed.balancer.set_scheduler(parse("rr").expect("a scheduler")).expect("a change");
    assert!(keyed.service.has_changed(std::task::Waker::noop()), "another scheduler");
    keyed.reconcile();
    assert!(!keyed.is_keyed(), "another scheduler");
    keyed.balancer.set_scheduler(parse("mh").expect("a scheduler")).expect("a change");
    let minute = std::time::Duration::from_secs(60);
    keyed.service = service(keyed.address, &keyed.balancer, |request| {
        request.persistence = Some(EnginePersistence::new(minute, 32));
    });
    keyed.reconcile();
    assert!(!keyed.is_keyed(), "persistence");
}
