//! Frames that are carried at XDP: on this machine's kernel by the generic mode, and by the driver of network cards in a
//! kernel of the test's own.

use std::time::Duration;
use std::{fs, thread};

use aya::maps::{Array, Map, MapData};
use lvs::engine::{EngineProtocol, NewConnections};
use lvs::packet::{PacketKernelState, XdpMode, detach};
use lvs::scheduler::RoundRobin;

use crate::carried::{
    ask_name, begin, carry_tcp, carry_udp, connect, download, expect_at_xdp, serve_tcp, settings,
    start_engine,
};
use crate::direct::{carry_directly, prepare_servers};
use crate::flows::{serve_both, until, virtual_address};
use crate::guest::{self, GuestKernel};
use crate::outlive::hand_over;
use crate::tunnels::{METHODS, begin_by, unpack};
use crate::world::{VIRTUAL, World, socket_address};

#[test]
fn tcp_is_carried_at_xdp_in_both_families() {
    if let Some(world) = World::build_at_generic_xdp() {
        carry_tcp(&world);
    }
}

#[test]
fn udp_is_carried_at_xdp_in_both_families() {
    if let Some(world) = World::build_at_generic_xdp() {
        carry_udp(&world);
    }
}

#[test]
fn connections_are_carried_at_xdp_by_direct_routing() {
    if let Some(world) = World::build_at_generic_xdp() {
        carry_directly(&world);
    }
}

#[test]
fn connections_are_carried_at_xdp_by_tunnels() {
    if let Some(world) = World::build_at_generic_xdp() {
        carry_by_tunnels(&world);
    }
}

fn carry_by_tunnels(world: &World) {
    prepare_servers(world);
    let _unpacking = unpack(world);
    for address in VIRTUAL {
        for machine in ["a", "b"] {
            serve_tcp(world, machine, socket_address(address, 80));
        }
    }
    let engine = start_engine(world, settings(world));
    let mut requests = 0;
    for method in METHODS {
        for (family, outer_family) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let tunnel = (method, outer_family);
            let (_set, service) = begin_by(&engine, EngineProtocol::Tcp, family, tunnel);
            let mut streams = [(); 2].map(|()| connect(world, socket_address(VIRTUAL[family], 80)));
            streams.iter_mut().for_each(download);
            for _ in 0..100 {
                streams.iter_mut().for_each(|stream| assert!("ab".contains(ask_name(stream))));
                requests += 2;
            }
            expect_at_xdp(world, &engine, requests);
            service.drain(Duration::ZERO, NewConnections::Refused);
        }
    }
}

#[test]
fn flows_are_handed_over_at_xdp() {
    let Some(world) = World::build_at_generic_xdp() else { return };
    hand_over(&world);
}

#[test]
fn the_next_engine_takes_the_devices_over() {
    let Some(world) = World::build_at_generic_xdp() else { return };
    serve_both(&world);
    let shown = || world.output("director", "ip", "-d link show to-client");
    let state = || PacketKernelState::read(&world.pin_folder()).expect("maps").expect("a state");
    let engine = start_engine(&world, settings(&world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let mut stream = connect(&world, virtual_address());
    download(&mut stream);
    assert!(shown().contains("xdpgeneric"), "{}", shown());
    service.hand_over();
    drop(engine);
    assert_eq!(state().xdp_devices, ["to-a", "to-b", "to-client"]);
    let before = state().statistics.at_xdp;
    download(&mut stream);
    assert!(state().statistics.at_xdp > before + 100, "frames are carried without a process");

    // One that has other settings leaves the devices that it does not want.
    let mut fewer = settings(&world);
    fewer.xdp_devices.retain(|device| device != "to-client");
    let engine = start_engine(&world, fewer);
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    assert_eq!(state().xdp_devices, ["to-a", "to-b"]);
    assert!(!shown().contains("xdp"), "{}", shown());
    let before = state().statistics.at_xdp;
    download(&mut stream);
    assert_eq!(state().statistics.at_xdp, before, "the device to the client has no program");
    service.hand_over();
    drop(engine);

    // What is left can be removed without a process.
    world.within("director", || detach(&world.pin_folder()).expect("removed"));
    let shown = world.output("director", "ip", "-d link show to-a");
    assert!(!shown.contains("xdp"), "{shown}");
}

/// Returns the numbers of the devices that frames may be sent to.
fn slots(world: &World) -> Vec<u32> {
    // Of one layout.
    let mut layouts = fs::read_dir(world.pin_folder()).expect("pins");
    let layout = layouts.next().expect("a layout").expect("readable").path();
    let map = MapData::from_pin(layout.join("xdp_devices")).expect("the map");
    let map = Array::<_, [u8; 12]>::try_from(Map::from_map_data(map).expect("an array"));
    let devices = map.expect("an array").iter().collect::<Result<Vec<_>, _>>().expect("slots");
    let numbers = devices.iter().map(|device| u32::from_ne_bytes([0, 1, 2, 3].map(|n| device[n])));
    numbers.filter(|number| *number != 0).collect()
}

#[test]
fn a_predecessor_sends_no_frames_to_a_device_that_its_successor_has_detached() {
    let Some(world) = World::build_at_generic_xdp() else { return };
    let predecessor = start_engine(&world, settings(&world));
    assert_eq!(slots(&world).len(), 3);
    let mut fewer = settings(&world);
    fewer.xdp_devices.retain(|device| device != "to-client");
    let successor = start_engine(&world, fewer);
    // Both look at the devices every second.
    for _ in 0..25 {
        assert_eq!(slots(&world).len(), 2);
        thread::sleep(Duration::from_millis(100));
    }
    drop((predecessor, successor));
}

#[test]
fn a_device_that_is_refused_gets_no_frames_any_more() {
    let Some(mut world) = World::build_at_generic_xdp() else { return };
    let engine = start_engine(&world, settings(&world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    service.hand_over();
    drop(engine);
    assert_eq!(slots(&world).len(), 3);
    // A pair of devices has no native XDP here.
    world.xdp_mode = Some(XdpMode::Native);
    let _engine = start_engine(&world, settings(&world));
    assert!(slots(&world).is_empty());
    let shown = world.output("director", "ip", "-d link show to-client");
    assert!(!shown.contains("xdp"), "{shown}");
}

#[test]
fn an_engine_runs_beside_a_device_whose_name_has_a_dot() {
    let Some(world) = World::build_at_generic_xdp() else { return };
    world.at("director", "link add eth0.100 type veth peer name other");
    world.at("director", "link set eth0.100 up");
    let mut settings = settings(&world);
    settings.xdp_devices.push("eth0.100".to_owned());
    let _engine = start_engine(&world, settings);
    let state = PacketKernelState::read(&world.pin_folder()).expect("maps").expect("a state");
    assert!(state.devices.contains(&"eth0.100".to_owned()), "{:?}", state.devices);
    assert!(state.xdp_devices.contains(&"eth0.100".to_owned()), "{:?}", state.xdp_devices);
}

#[test]
fn a_device_that_cannot_carries_packets_without() {
    let Some(mut world) = World::build_at_generic_xdp() else { return };
    // A pair of devices has no native XDP here.
    world.xdp_mode = Some(XdpMode::Native);
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    download(&mut connect(&world, virtual_address()));
    until("it is told", || engine.devices().len() > 3);
    assert!(engine.xdp_devices().is_empty());
    assert_eq!(engine.statistics().at_xdp, 0);
}

#[test]
fn where_the_kernel_may_not_forward_packets_are_carried_without() {
    let Some(world) = World::build_at_generic_xdp() else { return };
    let forward = |may: &str| {
        world.within("director", || {
            fs::write("/proc/sys/net/ipv4/conf/all/forwarding", may).expect("root may");
        });
    };
    forward("0");
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let mut stream = connect(&world, virtual_address());
    download(&mut stream);
    let at_xdp = || {
        let state = PacketKernelState::read(&world.pin_folder()).expect("maps");
        state.expect("a state").statistics.at_xdp
    };
    assert_eq!(at_xdp(), 0);
    forward("1");
    download(&mut stream);
    assert!(at_xdp() > 100, "{}", at_xdp());
}

/// Those that need network cards.
mod native {
    use super::*;

    fn with_cards(test: impl FnOnce(&World)) {
        if guest::enter() {
            test(&World::build_at_native_xdp().expect("the kernel is the test's own"));
        }
    }

    #[test]
    #[ignore = "runs in a kernel of its own"]
    fn tcp_is_carried_by_drivers() {
        with_cards(carry_tcp);
    }

    #[test]
    #[ignore = "runs in a kernel of its own"]
    fn udp_is_carried_by_drivers() {
        with_cards(carry_udp);
    }

    #[test]
    #[ignore = "runs in a kernel of its own"]
    fn connections_are_carried_by_drivers_by_direct_routing() {
        with_cards(carry_directly);
    }

    #[test]
    #[ignore = "runs in a kernel of its own"]
    fn connections_are_carried_by_drivers_by_tunnels() {
        with_cards(carry_by_tunnels);
    }

    #[test]
    #[ignore = "runs in a kernel of its own"]
    fn multi_buffer_frames_are_carried_by_drivers() {
        with_cards(|world| {
            for machine in ["client", "a", "b"] {
                world.at(machine, "link set eth0 mtu 9000");
                world.at("director", &format!("link set to-{machine} mtu 9000"));
            }
            serve_both(world);
            let engine = start_engine(world, settings(world));
            let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
            let mut stream = connect(world, virtual_address());
            ask_name(&mut stream);
            let state = || {
                let state = PacketKernelState::read(&world.pin_folder()).expect("maps");
                state.expect("a state")
            };
            let before = state();
            download(&mut stream);
            let after = state();
            let bytes = |state: &PacketKernelState| {
                let servers = state.services[0].servers.iter();
                servers.filter_map(|server| server.bytes_out).sum::<u64>()
            };
            let packets = after.statistics.at_xdp - before.statistics.at_xdp;
            let bytes = bytes(&after) - bytes(&before);
            // Those to the client are long, and as many go to the server at most.
            let are_long = bytes / packets > 3000 && packets * 9000 > bytes;
            assert!(packets > 100 && are_long, "{bytes} octets in {packets} frames");
            service.drain(Duration::ZERO, NewConnections::Refused);
        });
    }
}

#[test]
fn in_a_kernel_of_debian_with_network_cards() {
    let modules = ["tun", "veth", "virtio_net", "sch_ingress", "cls_bpf"];
    let guest = guest::Guest::new("at_xdp::native::").modules(&modules).programs(&["ip"]);
    guest.wires(&[2; 3]).run(GuestKernel::Qemu);
}
