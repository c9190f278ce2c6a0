//! The program in the kernel, and the model, side by side.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::model::{FrameVerdict, ProgramModel};
use super::model_state::{
    ModelDirector, ModelEvent, ModelFlow, ModelServer, ModelService, TEST_DEVICE, TapDevice,
};
use super::parsed::PacketKey;
use super::skipped::report_skipped;
use super::tunnelling::{GUE_PORT, outer_source};
use super::xdp_network::{XdpNetwork, enter_namespace};
use crate::packet::error::PacketError;
use crate::packet::layout::{
    RawControl, RawServer, RawService, RawServiceKey, RawTuple, SERVICE_HASHES_PORT,
    SERVICE_IS_ELSEWHERE, SERVICE_IS_KEYED, SERVICE_IS_NEW_HERE, SERVICE_SHEDS, SERVICE_UNOWNED,
    event_kind, flow_state, server_method,
};
use crate::packet::maps::PacketMaps;
use crate::packet::program::PacketProgram;
use crate::packet::settings::PacketSettings;
use crate::packet::statistics::PacketStatistics;
use crate::rtnetlink::RtnetlinkSocket;
use crate::sys::tuntap::open_tap;

/// Room for more flows than a test makes: which one a full table forgets is the kernel's choice.
const FLOWS: u32 = 32_768;
/// The places for flows that nobody is assured of.
pub(super) const PLACES: u32 = 64;
/// Devices that are not there: a test sees that a frame is redirected, and does not follow it.
const GONE: u32 = 12_345;
pub(super) const ROUTE: u32 = 54_321;
/// `XDP_DROP` and `XDP_PASS` of `uapi/linux/bpf.h`.
const FRAME_DROP: u32 = 1;
const FRAME_PASS: u32 = 2;
/// The MTU of the tap device.
pub(super) const TAP_MTU: usize = 1500;

/// A BPF file system, unmounted when it is dropped.
pub(in crate::packet) struct PinFolder(pub(in crate::packet) PathBuf);

impl Drop for PinFolder {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

impl PinFolder {
    /// Mounts one; `None` where this is not possible, for a reason that was printed.
    ///
    /// # Panics
    /// In CI, if it is not possible.
    pub(in crate::packet) fn try_mount() -> Option<Self> {
        present(Self::mount())
    }

    fn mount() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::getuid().is_root() {
            return Err("a BPF file system needs root".to_owned());
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lvs-model-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let folder = Self(path);
        mount("bpf", &folder.0, "bpf", MountFlags::empty(), None)
            .map_err(|error| format!("the kernel mounts no BPF file system: {error}"))?;
        Ok(folder)
    }
}

/// Returns what is there, or prints why it is not.
fn present<T>(found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none(), "{reason}");
            report_skipped(reason);
            None
        }
    }
}

/// Returns the number of a tap device, which is there as long as this process.
fn tap_device() -> Result<u32, String> {
    static TAP: OnceLock<Result<(File, u32), String>> = OnceLock::new();
    let tap = TAP.get_or_init(|| {
        let (file, name) = open_tap(c"lvsmodel%d").map_err(|it| format!("a tap device: {it}"))?;
        let device = RtnetlinkSocket::open().and_then(|mut netlink| netlink.device(&name));
        let device = device.map_err(|error| format!("the tap device {name}: {error}"))?;
        Ok((file, device.index))
    });
    tap.as_ref().map(|(_, index)| *index).map_err(Clone::clone)
}

/// The program and its model. Each frame goes through both.
pub(in crate::packet) struct ComparedProgram {
    pub(in crate::packet) program: PacketProgram,
    pub(in crate::packet) maps: PacketMaps,
    pub(super) model: ProgramModel,
    /// The number of a device that is there.
    pub(super) tap: u32,
    /// Frames go through the XDP program first.
    pub(super) xdp: Option<XdpNetwork>,
    // After the maps that are pinned in it.
    _folder: PinFolder,
}

impl ComparedProgram {
    /// Loads the program; `None` where this is not possible, for a reason that was printed.
    ///
    /// # Panics
    /// In CI, if it is not possible.
    pub(in crate::packet) fn load() -> Option<Self> {
        Self::load_with(tap_device)
    }

    /// The same in a network namespace of its own, with the XDP program before the other one.
    pub(super) fn load_at_xdp() -> Option<Self> {
        let mut opened = None;
        let mut this = Self::load_with(|| {
            enter_namespace()?;
            let (file, name) =
                open_tap(c"lvsmodel%d").map_err(|it| format!("a tap device: {it}"))?;
            let device = RtnetlinkSocket::open().and_then(|mut netlink| netlink.device(&name));
            let device = device.map_err(|error| format!("the tap device {name}: {error}"))?;
            opened = Some((file, name));
            Ok(device.index)
        })?;
        let (file, name) = opened?;
        this.xdp = Some(XdpNetwork::set_up((this.tap, &name, file), &mut this.maps));
        Some(this)
    }

    fn load_with(tap: impl FnOnce() -> Result<u32, String>) -> Option<Self> {
        let loaded = PinFolder::mount().and_then(|folder| {
            let tap = tap()?;
            let settings = PacketSettings {
                pin_folder: folder.0.clone(),
                flows: FLOWS,
                ipv6_flows: FLOWS,
                ..PacketSettings::default()
            };
            match PacketProgram::load(&settings) {
                Ok((program, maps)) => Ok((program, maps, tap, folder)),
                Err(error @ PacketError::Capability { .. }) => Err(error.to_string()),
                Err(error) => panic!("{error}"),
            }
        });
        let (program, mut maps, tap, folder) = present(loaded)?;
        let mut model = ProgramModel::default();
        model.places.max = PLACES as usize;
        // Less than there is room for, so that they are taken again and again.
        maps.set_place_rings([PLACES; 2]).expect("the places");
        Some(Self { program, maps, model, tap, xdp: None, _folder: folder })
    }

    /// Adds a service whose table has a slot for each of some new servers. Returns the servers' numbers.
    pub(super) fn serve(&mut self, address: &str, protocol: u8, servers: &[&str]) -> Vec<u32> {
        let address: SocketAddr = address.parse().expect("an address");
        let id = self.model.services.len() as u32;
        let first = self.model.servers.len() as u32;
        let mut slots = Vec::new();
        for (index, address) in (first..).zip(servers) {
            let address = address.parse().expect("an address");
            let server = ModelServer {
                address,
                service: id,
                method: server_method::NAT,
                is_available: true,
                has_route: true,
                mtu: None,
                source_spread: 0,
            };
            self.set_server(index, server);
            slots.push(index);
        }
        let of_address = RawServiceKey::new(address, protocol).of_address();
        self.maps.set_service(&of_address, &RawService::default()).expect("a service");
        self.model.addresses.insert(address.ip());
        let service = ModelService {
            id,
            sheds: false,
            is_keyed: false,
            is_owned: true,
            is_elsewhere: false,
            is_new_here: false,
            slots: slots.clone(),
        };
        self.set_service((address, protocol), service);
        slots
    }

    pub(super) fn set_service(&mut self, key: (SocketAddr, u8), service: ModelService) {
        let raw = RawService {
            id: service.id,
            slots: service.slots.len() as u32,
            flags: (if service.sheds { SERVICE_SHEDS } else { 0 })
                | if service.is_owned { 0 } else { SERVICE_UNOWNED }
                | if service.is_keyed { SERVICE_IS_KEYED } else { 0 }
                | if service.is_elsewhere { SERVICE_IS_ELSEWHERE } else { 0 }
                | if service.is_new_here { SERVICE_IS_NEW_HERE } else { 0 }
                | SERVICE_HASHES_PORT,
            ..RawService::default()
        };
        self.maps.set_table(service.id, &service.slots).expect("a table");
        self.maps.set_service(&RawServiceKey::new(key.0, key.1), &raw).expect("a service");
        self.model.services.insert(key, service);
    }

    /// Changes the service at an address.
    pub(super) fn change_service(
        &mut self,
        address: &str,
        protocol: u8,
        change: impl FnOnce(&mut ModelService),
    ) {
        let key = (address.parse().expect("an address"), protocol);
        let mut service = self.model.services[&key].clone();
        change(&mut service);
        self.set_service(key, service);
    }

    pub(super) fn set_server(&mut self, index: u32, server: ModelServer) {
        let raw = RawServer {
            address: server.address.ip().into(),
            port: server.address.port().into(),
            is_available: server.is_available.into(),
            method: server.method,
            ifindex: match (server.has_route, server.mtu) {
                (false, _) => 0,
                (true, None) => ROUTE,
                (true, Some(mtu)) => {
                    assert_eq!(mtu, TAP_MTU, "that of the device that is there");
                    self.tap
                }
            },
            service: server.service,
            source: outer_source(server.address).into(),
            source_spread: server.source_spread.to_be(),
            tunnel_port: GUE_PORT.into(),
            pad: [0; 2],
        };
        self.maps.set_server(index, &raw).expect("a server");
        self.model.servers.insert(index, server);
    }

    pub(super) fn change_server(&mut self, index: u32, change: impl FnOnce(&mut ModelServer)) {
        let mut server = self.model.servers[&index].clone();
        change(&mut server);
        self.set_server(index, server);
    }

    pub(super) fn set_director(&mut self, director: ModelDirector) {
        let control = RawControl {
            alive_until: if director.is_alive { u64::MAX } else { 0 },
            tap_ifindex: match director.tap {
                TapDevice::None => 0,
                TapDevice::Gone => GONE,
                TapDevice::Present => self.tap,
                TapDevice::Test => TEST_DEVICE,
            },
            upcalls_per_window: if director.has_budget { u32::MAX } else { 0 },
            answers_per_window: if director.answers { u32::MAX } else { 0 },
            first_check_mark: 0,
        };
        self.maps.set_control(&control).expect("the control");
        self.model.director = director;
    }

    /// Runs both on a frame, and asserts that they do the same with it. Returns what the frame becomes.
    pub(super) fn run(&mut self, frame: &[u8]) -> (FrameVerdict, Vec<u8>) {
        // No director gives anything back.
        self.maps.clear_waiting_upcalls().expect("the count");
        let (verdict, output) = self.run_program(frame);
        let events: Vec<_> = std::iter::from_fn(|| self.maps.next_event())
            .map(|event| ModelEvent {
                kind: event.kind,
                key: flow_key(&event.tuple),
                server: event.server,
                service: event.service,
                state: event.state,
                ifindex: event.ifindex,
                bytes: [event.bytes_to_server, event.bytes_to_client],
            })
            .collect();
        let decided = events.iter().find(|event| event.kind == event_kind::DECIDED);
        let maps = &self.maps;
        let has_flow = |key: PacketKey| {
            maps.flow(&RawTuple::new(key.0, key.1, key.2)).expect("the flows").is_some()
        };
        let decided = decided.map(|event| event.server);
        let expected = self.model.run(frame, decided, &has_flow);
        assert_eq!(verdict, expected.verdict, "{frame:02x?}");
        assert_eq!(events, std::mem::take(&mut self.model.events), "events of {frame:02x?}");
        let same_zeros = |mut frame: Vec<u8>| {
            for at in &expected.checksums {
                if frame[*at..*at + 2] == [0, 0] {
                    frame[*at..*at + 2].fill(0xff);
                }
            }
            frame
        };
        let (found, wanted) = (same_zeros(output.clone()), same_zeros(expected.frame));
        assert_eq!(found, wanted, "left: the program's, right: the model's, of {frame:02x?}");
        (verdict, output)
    }

    fn run_program(&mut self, frame: &[u8]) -> (FrameVerdict, Vec<u8>) {
        if let Some(network) = &mut self.xdp {
            match self.program.test_run_xdp(frame) {
                (FRAME_DROP, output) => return (FrameVerdict::Drop, output),
                (FRAME_PASS, output) => assert_eq!(output, frame, "it is passed on as it is"),
                (verdict, output) => {
                    self.model.statistics.at_xdp += 1;
                    return (FrameVerdict::Redirect, network.check(verdict, frame, output));
                }
            }
        }
        let (verdict, output) = self.program.test_run(frame);
        let verdict = match verdict {
            -1 => FrameVerdict::Next,
            2 => FrameVerdict::Drop,
            7 => FrameVerdict::Redirect,
            other => panic!("verdict {other}"),
        };
        (verdict, output)
    }

    /// Runs both on a valid frame, which passes, and asserts that its checksums are valid after it.
    pub(super) fn pass(&mut self, frame: &[u8]) -> Vec<u8> {
        let (verdict, output) = self.run(frame);
        assert_eq!(verdict, FrameVerdict::Redirect, "{frame:02x?}");
        super::frames::assert_valid(&output);
        output
    }

    /// Asserts that a frame is left as it is, to the stack.
    pub(super) fn leave(&mut self, frame: &[u8]) {
        assert_eq!(self.run(frame), (FrameVerdict::Next, frame.to_vec()));
    }

    /// Asserts that both have the same flows and have counted the same.
    pub(super) fn compare_state(&self) {
        let flows = self.maps.flows().map(|entry| entry.expect("a flow"));
        let mut count = 0;
        for flow in flows {
            let key = flow_key(&flow.tuple);
            let found = ModelFlow {
                source: flow.rewritten.source(),
                destination: flow.rewritten.destination(),
                server: flow.server,
                service: self.maps.server(flow.server).expect("the server").service,
                state: flow.state,
                bytes: flow.bytes,
                place: flow.place,
                mtu: (flow.ifindex == self.tap).then_some(TAP_MTU),
            };
            assert_eq!(Some(&found), self.model.flows.get(&key), "flow {key:?}");
            assert_ne!(flow.seen_at, 0, "{key:?}");
            count += 1;
        }
        assert_eq!(count, self.model.flows.len());
        let statistics = PacketStatistics::read(&self.maps).expect("the statistics");
        assert_eq!(statistics, self.model.statistics);
        for server in self.model.servers.keys() {
            let counters = self.maps.server_counters(*server).expect("the counters");
            let expected = self.model.counters.get(server).copied().unwrap_or_default();
            assert_eq!(counters, expected, "server {server}");
        }
    }

    /// Returns the bits of both directions of a flow, without the direction.
    pub(super) fn states(&self, key: PacketKey) -> [u32; 2] {
        let there = self.maps.flow(&RawTuple::new(key.0, key.1, key.2)).expect("the flows");
        let there = there.expect("the flow");
        let back = self.maps.flow(&there.back_tuple()).expect("the flows");
        let back = back.expect("the way back");
        assert_eq!([there.state & 1, back.state & 1], [0, 1], "the directions");
        [there.state & !flow_state::ASSURED, back.state & !1]
    }
}

fn flow_key(tuple: &RawTuple) -> PacketKey {
    (tuple.source(), tuple.destination(), tuple.protocol)
}
