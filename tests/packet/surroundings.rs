//! What a machine may lack: each error names it, with what to do.

use std::fs;
use std::time::Duration;

use lvs::engine::{
    CheckMark, CheckMarks, Engine as _, EngineProtocol, ForwardingMethod, NewConnections,
};
use lvs::packet::{PacketEngine, PacketKernelState, PacketSettings, XdpMode};
use lvs::scheduler::RoundRobin;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::carried::{ask_name, connect, request, request_to_port, settings, start_engine};
use crate::flows::{serve_both, virtual_address};
use crate::world::{SERVERS, World, socket_address};

fn start_error(settings: PacketSettings) -> String {
    PacketEngine::start(settings).expect_err("it cannot start").to_string()
}

#[test]
fn the_folder_must_be_in_a_bpf_file_system() {
    let Some(world) = World::build() else { return };
    let folder = std::env::temp_dir().join(world.namespace("plain"));
    let mut settings = settings(&world);
    settings.pin_folder.clone_from(&folder);
    let error = world.within("director", || start_error(settings));
    assert!(!folder.exists(), "nothing is left");
    assert!(
        error.contains(&*folder.to_string_lossy()) && error.contains("mount -t bpf"),
        "{error}"
    );
}

#[test]
fn the_process_must_have_two_capabilities() {
    if let Some(world) = World::build() {
        need_capabilities(&world, CapabilitySet::BPF | CapabilitySet::NET_ADMIN);
    }
}

/// Shows that an engine needs some capabilities, of which these are enough, also for its other programs.
pub(crate) fn need_capabilities(world: &World, enough: CapabilitySet) {
    let mut settings = settings(world);
    settings.xdp_mode = XdpMode::Generic;
    settings.xdp_devices = vec!["to-client".to_owned()];
    // Starts an engine, and returns what it has for the check of a server.
    let try_with = |capabilities| {
        world.within("director", || {
            // The folder is there, so that only what is tested is missing.
            fs::create_dir_all(settings.pin_folder.join("v1")).expect("a BPF file system");
            let sets = CapabilitySets {
                effective: capabilities,
                permitted: capabilities,
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, sets).expect("less is always possible");
            let engine =
                PacketEngine::start(settings.clone()).map_err(|error| error.to_string())?;
            let (set, mut request) = request_to_port(80, EngineProtocol::Tcp, 0, RoundRobin::new());
            let id = set.snapshot().backends()[0].id().clone();
            request.methods.replace([(id.clone(), ForwardingMethod::DirectRouting)].into());
            let marks = CheckMarks::default();
            request.check_marks = Some(marks.clone());
            let service = engine.claim(request).expect("a claim").begin().expect("it is served");
            let mark = marks.get(&id);
            let state = PacketKernelState::read(&settings.pin_folder).expect("the maps");
            let at_xdp = state.expect("they are there").xdp_devices;
            service.drain(Duration::ZERO, NewConnections::Refused);
            Ok::<_, String>((mark, at_xdp))
        })
    };
    let (bpf, network) = (CapabilitySet::BPF, CapabilitySet::NET_ADMIN);
    for too_few in [CapabilitySet::empty(), bpf, network] {
        let error = try_with(too_few).expect_err("too few");
        assert!(error.contains("CAP_BPF and CAP_NET_ADMIN"), "{too_few:?}: {error}");
    }
    // Root's files, of which the capability to pass over their rights is not needed.
    let (mark, at_xdp) = try_with(enough).expect("these are enough");
    assert!(matches!(mark, CheckMark::Mark(_)), "also for the program for checks: {mark:?}");
    assert_eq!(at_xdp, ["to-client"], "also for the XDP program");
}

#[test]
fn a_server_of_another_family_than_the_service_gets_no_flows() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (set, request) = request(EngineProtocol::Tcp, 0, RoundRobin::new());
    let other = set.insert(socket_address(SERVERS[1][0], 8080)).expect("a server");
    let _service = engine.claim(request).expect("a claim").begin().expect("it is served");
    let mut streams: Vec<_> = (0..6).map(|_| connect(&world, virtual_address())).collect();
    assert!(streams.iter_mut().map(ask_name).all(|name| "ab".contains(name)));
    assert_eq!(other.load().active, 0);
}
