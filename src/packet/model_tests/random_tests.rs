//! A long run of random packets, with changes of the configuration in between.

use fastrand::Rng;

use super::compared::ComparedProgram;
use super::compared::TAP_MTU;
use super::generator::PacketGenerator;
use super::model_state::{ModelDirector, TapDevice};
use super::{SERVICE, address};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, server_method};
use crate::packet::statistics::PacketStatistics;

const PACKETS: usize = 30_000;
/// Every so many packets both are compared as a whole.
const COMPARED_EVERY: usize = 2000;
/// Another one may be given in the environment.
const SEED: u64 = 0x6c76;
const SEED_VARIABLE: &str = "LVS_MODEL_SEED";

const SERVICES: [(&str, u8, &[&str]); 7] = [
    (SERVICE[0], PROTOCOL_TCP, &["10.2.0.2:8080", "10.2.0.3:80", "10.2.0.4:65535"]),
    (SERVICE[1], PROTOCOL_TCP, &["[fd02::2]:8080", "[fd02::3]:80"]),
    ("10.9.0.1:53", PROTOCOL_UDP, &["10.2.0.2:53", "10.2.0.3:5353"]),
    ("[fd09::1]:53", PROTOCOL_UDP, &["[fd02::2]:53", "[fd02::3]:5353"]),
    // Servers of two services, of which a way back can be taken.
    ("10.9.0.2:80", PROTOCOL_TCP, &["10.2.0.2:8080"]),
    ("[fd09::2]:53", PROTOCOL_UDP, &["[fd02::2]:53"]),
    // A service whose server is another service's client.
    ("10.9.0.3:80", PROTOCOL_TCP, &["10.1.0.2:5000"]),
];

#[test]
fn random_packets_meet_the_same_fate_in_both() {
    if let Some(compared) = ComparedProgram::load() {
        run_random_packets(compared);
    }
}

#[test]
fn random_packets_meet_the_same_fate_at_xdp() {
    let Some(compared) = ComparedProgram::load_at_xdp() else { return };
    let carried = run_random_packets(compared).at_xdp;
    assert!(carried > 2000, "{carried} of {PACKETS}");
}

fn run_random_packets(mut compared: ComparedProgram) -> PacketStatistics {
    let seed = std::env::var(SEED_VARIABLE).ok();
    let seed = seed.map_or(SEED, |seed| seed.parse().expect("a number"));
    // Shown if the test fails.
    println!("{SEED_VARIABLE}={seed}");
    for (address, protocol, servers) in SERVICES {
        compared.serve(address, protocol, servers);
    }
    let mut generator = PacketGenerator::new(Rng::with_seed(seed), &compared.model);
    for n in 1..=PACKETS {
        if generator.random.u8(..50) == 0 {
            reconfigure(&mut compared, &mut generator.random);
        }
        let frame = generator.next_frame(&compared.model);
        compared.run(&frame);
        if n % COMPARED_EVERY == 0 {
            compared.compare_state();
        }
    }
    // What packets have come to is not all the same.
    let counted = compared.model.statistics;
    assert!(compared.model.flows.len() > 100, "{}", compared.model.flows.len());
    let of_packets = [
        counted.upcalls,
        counted.table_decisions,
        counted.refused_at_limit,
        counted.refused_without_server,
        counted.fragments,
        counted.with_options,
        counted.malformed,
        counted.without_flow,
        counted.hop_limit,
        counted.too_long,
        counted.icmp_errors,
    ];
    assert!(of_packets.iter().all(|count| *count >= 20), "{counted:?}");
    counted
}

/// Changes the director, a server or a service.
fn reconfigure(compared: &mut ComparedProgram, random: &mut Rng) {
    let (of, protocol, servers) = SERVICES[random.usize(..SERVICES.len())];
    let first = compared.model.services[&(address(of), protocol)].id;
    let mut of_service: Vec<_> = compared.model.servers.keys().copied().collect();
    of_service.retain(|index| compared.model.servers[index].service == first);
    of_service.sort_unstable();
    assert_eq!(of_service.len(), servers.len());
    let server = of_service[random.usize(..of_service.len())];
    match random.u8(..9) {
        0 | 1 => {
            let mut others = vec![TapDevice::None, TapDevice::Gone];
            // The frames of the director's own device do not come to the XDP program.
            if compared.xdp.is_none() {
                others.push(TapDevice::Test);
            }
            let tap = others.get(random.usize(..6)).copied().unwrap_or(TapDevice::Present);
            // Mostly, so that tables decide most flows.
            let is_alive = random.u8(..3) == 0;
            let has_budget = random.bool();
            let answers = random.bool();
            compared.set_director(ModelDirector { is_alive, tap, has_budget, answers });
        }
        2 | 3 => {
            let is_available = random.u8(..4) > 0;
            compared.change_server(server, |server| server.is_available = is_available);
        }
        4 => {
            let has_route = random.u8(..4) > 0;
            // At XDP nothing leaves by a device that is not there.
            let mtu = (compared.xdp.is_some() || random.bool()).then_some(TAP_MTU);
            compared.change_server(server, |server| {
                (server.has_route, server.mtu) = (has_route, mtu);
            });
        }
        5 => {
            let methods = [server_method::DIRECT, server_method::IPIP, server_method::GUE];
            let method = methods.get(random.usize(..6)).copied().unwrap_or(server_method::NAT);
            compared.change_server(server, |server| server.method = method);
        }
        6 => {
            let (sheds, is_owned) = (random.u8(..4) == 0, random.u8(..4) > 0);
            let (is_keyed, is_elsewhere) = (random.bool(), random.u8(..6) == 0);
            let is_new_here = random.u8(..6) == 0;
            compared.change_service(of, protocol, |service| {
                (service.sheds, service.is_owned, service.is_keyed) = (sheds, is_owned, is_keyed);
                service.is_elsewhere = is_elsewhere;
                service.is_new_here = is_new_here;
            });
        }
        _ => {
            let len = random.usize(..9);
            let slots = (0..len).map(|_| of_service[random.usize(..of_service.len())]).collect();
            compared.change_service(of, protocol, |service| service.slots = slots);
        }
    }
}
