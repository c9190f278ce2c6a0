//! Two engines, of which one tells the other of its flows. They are in one network namespace, of the test's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::flow::PacketFlow;
use super::server_slots::ServerSlot;
use super::start::PacketEngine;
use super::worker::{PacketWorker, ProgramClock, now};
use crate::engine::{
    Engine, EngineAddress, EngineProtocol, EngineRequest, EngineService, ForwardingMethod,
};
use crate::packet::flow_direction::FlowDirection;
use crate::packet::flow_sync::{FlowBatch, FlowFeed};
use crate::packet::layout::{
    LAYOUT_VERSION, PROTOCOL_TCP, PROTOCOL_UDP, RawEvent, RawServer, RawServiceKey, RawTuple,
    flow_state,
};
use crate::packet::maps::PacketMaps;
use crate::packet::model_tests::PinFolder;
use crate::packet::settings::PacketSettings;
use crate::scheduler::RoundRobin;
use crate::{BackendSet, Balancer};

const VIRTUAL: [&str; 2] = ["10.9.0.1", "fd09::1"];
const SERVER: [&str; 2] = ["10.2.0.2", "fd02::2"];

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// Moves the thread to a network namespace with routes to servers and clients, and without the virtual addresses.
fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root may");
    ip("link add near type veth peer name far");
    for device in ["lo", "near", "far"] {
        ip(&format!("link set {device} up"));
    }
    ip("address add 10.2.0.1/24 dev near");
    ip("-6 address add fd02::1/64 dev near nodad");
    ip("route add default via 10.2.0.254");
    ip("-6 route add default via fd02::254");
}

/// An engine with a service of each protocol, family and method.
struct TestEngine {
    engine: PacketEngine,
    services: Vec<(BackendSet<SocketAddr>, Box<dyn EngineService>)>,
}

/// The services: those of odd ports are by direct routing.
fn service_addresses() -> Vec<(EngineProtocol, SocketAddr)> {
    let families = VIRTUAL.map(|address| address.parse::<IpAddr>().expect("an address"));
    let ports = [(EngineProtocol::Tcp, 80), (EngineProtocol::Tcp, 81), (EngineProtocol::Udp, 80)];
    let of_family = |address| ports.map(|(it, port)| (it, SocketAddr::new(address, port)));
    families.into_iter().flat_map(of_family).collect()
}

impl TestEngine {
    fn start(folder: &Path, name: &str, flows: u32) -> Self {
        let settings = PacketSettings {
            pin_folder: folder.join(name),
            flows,
            ipv6_flows: 4096,
            devices: vec!["none".to_owned()],
            alive_for: Duration::from_secs(60),
            ..PacketSettings::default()
        };
        let engine = PacketEngine::start(settings).expect("the engine");
        let services = service_addresses().into_iter().map(|(protocol, address)| {
            let set = BackendSet::new();
            let server = SERVER[usize::from(address.is_ipv6())].parse().expect("an address");
            let server = SocketAddr::new(server, address.port());
            set.insert(server).expect("a server");
            let balancer = Balancer::new(&set, RoundRobin::new()).expect("a balancer");
            let address = EngineAddress::Socket { protocol, address };
            let request = EngineRequest::new("web", address, balancer, "rr");
            if server.port() % 2 == 1 {
                let id = set.snapshot().backends()[0].id().clone();
                request.methods.replace([(id, ForwardingMethod::DirectRouting)].into());
            }
            let service = engine.claim(request).expect("a claim").begin().expect("it is served");
            (set, service)
        });
        let services = services.collect();
        Self { engine, services }
    }

    /// Writes a flow of each service into the kernel's table, and to the records, as if a client had been served.
    fn add_flows(&self, client_port: u16) {
        self.engine.run(move |worker| {
            for (protocol, address) in service_addresses() {
                let client = if address.is_ipv4() { "11.0.0.1" } else { "fd11::1" };
                let client = SocketAddr::new(client.parse().expect("an address"), client_port);
                add_flow(worker, protocol, client, address);
            }
        });
    }

    fn feed(&self) -> FlowFeed {
        self.engine.flow_feed().expect("the thread runs")
    }

    fn leases(&self) -> u32 {
        let load = |set: &BackendSet<SocketAddr>| set.snapshot().backends()[0].load().active;
        self.services.iter().map(|(set, _)| load(set)).sum()
    }

    /// Returns the directions that the kernel has, in an order, without when they were seen and what passed.
    fn directions(&self) -> Vec<(RawTuple, RawTuple, u32, u32)> {
        self.engine.run(|worker| {
            let flows = worker.maps.flows().map(|flow| flow.expect("the flows"));
            let mut flows = flows
                .map(|flow| (flow.tuple, flow.rewritten, flow.state, flow.ifindex))
                .collect::<Vec<_>>();
            flows.sort_unstable();
            flows
        })
    }
}

fn add_flow(
    worker: &mut PacketWorker,
    protocol: EngineProtocol,
    client: SocketAddr,
    address: SocketAddr,
) {
    let protocol = match protocol {
        EngineProtocol::Tcp => PROTOCOL_TCP,
        EngineProtocol::Udp => PROTOCOL_UDP,
    };
    let key = RawServiceKey::new(address, protocol);
    let service = worker.services[&key].id;
    let of_service = |(index, slot): (u32, &ServerSlot)| {
        (slot.raw.service == service).then_some((index, slot.raw))
    };
    let (server, raw) = worker.servers.iter().find_map(of_service).expect("a server");
    let tuple = RawTuple::new(client, address, protocol);
    write_flow(&mut worker.maps, tuple, (server, &raw), worker.clock.now());
    record_flow(worker, tuple, server);
}

/// Writes a flow into the kernel's table. The device is that of the route to the client, too.
fn write_flow(maps: &mut PacketMaps, tuple: RawTuple, (server, raw): (u32, &RawServer), at: u64) {
    let (there, back) = FlowDirection::of_new_flow(tuple, (server, raw), raw.ifindex, at);
    let answered = |flow: FlowDirection, more| FlowDirection {
        state: flow.state | flow_state::ANSWERED | more,
        ..flow
    };
    if let Some(back) = back {
        maps.insert_flow(answered(back, 0)).expect("room");
    }
    maps.insert_flow(answered(there, flow_state::ASSURED)).expect("room");
}

fn record_flow(worker: &mut PacketWorker, tuple: RawTuple, server: u32) {
    let service = worker.servers.get(server).expect("it is there").raw.service;
    let lease = worker.lease_of(service, server);
    let mut record = PacketFlow::new(lease, server, service, worker.clock.now());
    record.is_answered = true;
    let (servers, settings) = (&mut worker.servers, &worker.settings);
    worker.flows.insert(tuple, record, servers, settings);
}

/// Gives the other engine what one tells until it knows so many flows.
async fn pass_on(feed: &mut FlowFeed, to: &TestEngine, flows: usize) {
    for _ in 0..200 {
        let batch = feed.next().await.expect("the engine runs");
        to.engine.restore_flows(batch).expect("the flows are restored");
        if to.directions().iter().filter(|(_, _, state, _)| state & 1 == 0).count() == flows {
            return;
        }
    }
    panic!("the other engine has {:?}", to.directions());
}

fn block_on<R>(future: impl Future<Output = R>) -> R {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

#[test]
fn an_engine_knows_the_flows_of_another_one() {
    let Some(folder) = PinFolder::try_mount() else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            enter_namespace();
            block_on(know_the_flows(&folder.0));
        });
    });
}

async fn know_the_flows(folder: &Path) {
    let (first, second) =
        (TestEngine::start(folder, "a", 4096), TestEngine::start(folder, "b", 4096));
    let services = first.services.len();
    first.add_flows(5000);
    let mut feed = first.feed();
    pass_on(&mut feed, &second, services).await;
    assert_eq!(second.directions(), first.directions());
    // By network address translation, a flow has two directions.
    assert_eq!(first.directions().len(), 2 * services - 2);
    assert_eq!((first.leases(), second.leases()), (6, 6));

    // Those that come later, and those that end.
    first.add_flows(5001);
    pass_on(&mut feed, &second, 2 * services).await;
    first.engine.run(|worker| {
        let is_cut = |_: &PacketFlow| true;
        let now = worker.clock.now();
        let (maps, servers) = (&mut worker.maps, &mut worker.servers);
        worker.flows.cut(is_cut, now, maps, servers).expect("they end");
    });
    first.add_flows(5002);
    pass_on(&mut feed, &second, services).await;
    assert_eq!((second.directions(), second.leases()), (first.directions(), 6));

    // What was not told of since all were told has ended: here what another one has told.
    let mut stale = feed.next().await.expect("the engine runs");
    (stale.begins_all, stale.ends_all) = (true, true);
    stale.flows.clear();
    second.engine.restore_flows(stale).expect("there is none");
    assert_eq!((second.directions(), second.leases()), (vec![], 0));
    let mut feed = first.feed();
    pass_on(&mut feed, &second, services).await;

    // Of an address that this machine has it knows better.
    ip("address add 10.9.0.1/32 dev lo");
    let all = FlowBatch { begins_all: true, ends_all: true, flows: vec![] };
    second.engine.run(|worker| {
        worker.follow_addresses(now()).expect("the routes");
        worker.services.values_mut().for_each(|service| service.gained_at = None);
    });
    second.engine.restore_flows(all).expect("there is none");
    assert_eq!(second.leases(), 3, "those of IPv4");
    first.add_flows(5003);
    pass_on(&mut feed, &second, services).await;
    assert_eq!(second.leases(), 6, "of IPv4 as before, of IPv6 those that are newer");
}

/// Flows that begin, and that end, in a second.
const RATE: u32 = 100_000;
const SECONDS: u32 = 5;

/// The processor time of the calling thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("nanoseconds"))
}

#[test]
#[ignore = "takes ten seconds, and prints figures"]
fn what_synchronization_costs() {
    let Some(folder) = PinFolder::try_mount() else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            enter_namespace();
            block_on(measure(&folder.0));
        });
    });
}

async fn measure(folder: &Path) {
    const ROOM: u32 = 1 << 20;
    let [first, second] = ["a", "b"].map(|name| TestEngine::start(folder, name, ROOM));
    let pins = folder.join("a").join(format!("v{LAYOUT_VERSION}"));
    // The table is written by this thread, as the program does it.
    let mut maps = PacketMaps::from_pins(&pins).expect("the maps");
    let address = service_addresses()[0].1;
    let tuple_of = |number: u32| {
        let client = Ipv4Addr::from(0x0b00_0000 + (number >> 14));
        let client = SocketAddr::new(client.into(), (0x4000 + (number & 0x3fff)) as u16);
        RawTuple::new(client, address, PROTOCOL_TCP)
    };
    let (server, raw) = first.engine.run(|worker| {
        let slot = worker.servers.iter().next().expect("a server");
        (slot.0, slot.1.raw)
    });
    let times = |engine: &TestEngine| engine.engine.run(|_| thread_time());
    for (part, is_followed, has_ends) in
        [(0, true, false), (1, true, true), (2, false, false), (3, false, true)]
    {
        let first_number = part * 2 * SECONDS * RATE;
        let is_over = AtomicBool::new(false);
        let (is_ready, ready) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let keep = || block_on(keep_all(&first, &second, (first_number, is_ready), &is_over));
            let reader = is_followed.then(|| scope.spawn(keep));
            // Those of the parts before are not measured.
            if is_followed {
                ready.recv().expect("it is ready");
            }
            let before = [times(&first), times(&second)];
            let begun = now();
            for tenth in 0..SECONDS * 10 {
                let from = first_number + tenth * RATE / 10;
                let begin: Vec<_> = (from..from + RATE / 10).map(tuple_of).collect();
                let has_ends = has_ends && tenth >= 10;
                let old = (from..from + RATE / 10).filter(|_| has_ends);
                let end: Vec<_> = old.map(|number| tuple_of(number - RATE)).collect();
                for tuple in &begin {
                    write_flow(&mut maps, *tuple, (server, &raw), ProgramClock.now());
                }
                first.engine.run(move |worker| {
                    for tuple in begin {
                        record_flow(worker, tuple, server);
                    }
                    let state = flow_state::FINS;
                    for tuple in end {
                        let event = RawEvent { tuple, server, state, ..RawEvent::default() };
                        worker.flows.ended(&event);
                    }
                });
                let due = Duration::from_millis(100) * (tenth + 1);
                std::thread::sleep(due.saturating_sub(now() - begun));
            }
            let took = (now() - begun).as_secs_f64();
            let part =
                |after: Duration, before: Duration| (after - before).as_secs_f64() / took * 100.0;
            println!(
                "followed: {is_followed}, ends: {has_ends}; {:.0} flows a second; engines: {:.1} %, {:.1} %",
                f64::from(SECONDS * RATE) / took,
                part(times(&first), before[0]),
                part(times(&second), before[1]),
            );
            is_over.store(true, Ordering::Relaxed);
            if let Some(reader) = reader {
                reader.join().expect("no panic");
            }
        });
    }
}

/// Has one engine keep the flows of another one until it is over, and prints what that takes. Flows have numbers from
/// the first one on, and begin evenly when it is ready.
async fn keep_all(
    from: &TestEngine,
    to: &TestEngine,
    (first_number, is_ready): (u32, std::sync::mpsc::Sender<()>),
    is_over: &AtomicBool,
) {
    let mut feed = from.feed();
    let (mut told, mut octets, mut rounds) = ([0_u64; 2], 0, 0);
    let mut ages = Vec::new();
    loop {
        let batch = feed.next().await.expect("the engine runs");
        let ends_all = batch.ends_all;
        to.engine.restore_flows(batch).expect("they are restored");
        if ends_all {
            break;
        }
    }
    let begun = now();
    is_ready.send(()).expect("it waits");
    while !is_over.load(Ordering::Relaxed) {
        let encoded = feed.next().await.expect("the engine runs").encode();
        octets += encoded.len();
        let batch = FlowBatch::parse(&encoded).expect("it is valid");
        rounds += u32::from(batch.begins_all);
        for flow in &batch.flows {
            told[usize::from(flow.is_open)] += 1;
        }
        let last = batch.flows.iter().rev().find(|flow| flow.is_open).map(|flow| flow.client);
        to.engine.restore_flows(batch).expect("they are restored");
        // How old the last flow of the batch is when it is there.
        if let Some(SocketAddr::V4(client)) = last {
            let number = client.ip().to_bits().wrapping_sub(0x0b00_0000) << 14;
            let number = (number + u32::from(client.port()) - 0x4000).saturating_sub(first_number);
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(RATE));
            ages.push((now() - begun).saturating_sub(due));
        }
    }
    let seconds = (now() - begun).as_secs_f64();
    ages.sort_unstable();
    let [ended, opened] = told;
    println!(
        "told {opened} that began and {ended} that ended, {rounds} times all; {:.1} octets each, {:.2} MB a second; \
         age when they are there: median {:?}, at most {:?}",
        octets as f64 / (ended + opened) as f64,
        octets as f64 / seconds / 1e6,
        ages[ages.len() / 2],
        ages[ages.len() - 1],
    );
}
