//! The maps, with keys and values of [`layout`](super::layout).

use std::collections::BTreeMap;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use zerocopy::{FromBytes, transmute};

use super::causes::with_causes;
use super::error::PacketError;
use super::flow_direction::FlowDirection;
use super::layout::{
    RawControl, RawEvent, RawFlow, RawPeer, RawPlaceRing, RawServer, RawServerCounters, RawService,
    RawServiceKey, RawTuple, RawTupleIpv4, RawXdpDevice, XDP_DEVICE_SLOTS,
};

/// Maps that are made anew may have another number of entries than the one that they replace (since Linux
/// 5.10).
const BPF_F_INNER_MAP: u32 = 0x1000;
/// An entry is stored if there is none with its key.
const BPF_NOEXIST: u64 = 1;

/// The maps of the program.
pub(super) struct PacketMaps {
    flows_ipv4: HashMap<MapData, [u8; 16], [u8; 48]>,
    flows_ipv6: HashMap<MapData, [u8; 40], [u8; 48]>,
    services: HashMap<MapData, [u8; 20], [u8; 24]>,
    servers: Array<MapData, [u8; 52]>,
    peers: HashMap<MapData, u32, [u8; 12]>,
    xdp_devices: Array<MapData, [u8; 12]>,
    tables: ArrayOfMaps<MapData, Array<MapData, u32>>,
    server_counts: PerCpuArray<MapData, [u8; 40]>,
    counts: PerCpuArray<MapData, u64>,
    control: Array<MapData, [u8; 24]>,
    place_rings: Array<MapData, [u8; 16]>,
    waiting_upcalls: Array<MapData, u64>,
    events: RingBuf<MapData>,
}

impl std::fmt::Debug for PacketMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketMaps").finish_non_exhaustive()
    }
}

fn map_error(map: &'static str) -> impl Fn(MapError) -> PacketError {
    move |error| PacketError::Map { map, reason: with_causes(&error) }
}

/// Ignores that an entry is absent.
fn if_present<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl PacketMaps {
    /// Takes the maps of a program that was loaded.
    pub(super) fn from_program(program: &mut Ebpf) -> Result<Self, PacketError> {
        Self::from_maps(|name| {
            program.take_map(name).ok_or_else(|| PacketError::Map {
                map: name,
                reason: "the program does not have it".to_owned(),
            })
        })
    }

    /// Opens the maps that lie in a folder.
    pub(super) fn from_pins(folder: &Path) -> Result<Self, PacketError> {
        Self::from_maps(|name| {
            let map = MapData::from_pin(folder.join(name)).and_then(Map::from_map_data);
            map.map_err(map_error(name))
        })
    }

    fn from_maps(
        mut map: impl FnMut(&'static str) -> Result<Map, PacketError>,
    ) -> Result<Self, PacketError> {
        macro_rules! typed {
            ($name:literal) => {
                map($name)?.try_into().map_err(map_error($name))?
            };
        }
        Ok(Self {
            flows_ipv4: typed!("flows_ipv4"),
            flows_ipv6: typed!("flows_ipv6"),
            services: typed!("services"),
            servers: typed!("servers"),
            peers: typed!("peers"),
            xdp_devices: typed!("xdp_devices"),
            tables: typed!("tables"),
            server_counts: typed!("server_counts"),
            counts: typed!("counts"),
            control: typed!("control"),
            place_rings: typed!("place_rings"),
            waiting_upcalls: typed!("waiting_upcalls"),
            events: typed!("events"),
        })
    }

    pub(super) fn flow(&self, tuple: &RawTuple) -> Result<Option<FlowDirection>, PacketError> {
        let found = match RawTupleIpv4::from_tuple(tuple) {
            Some(key) => if_present(self.flows_ipv4.get(&transmute!(key), 0)),
            None => if_present(self.flows_ipv6.get(&transmute!(*tuple), 0)),
        };
        let found = found.map_err(map_error("flows"))?;
        Ok(found.map(|flow| FlowDirection::from_raw(*tuple, transmute!(flow))))
    }

    /// Stores a direction of a flow, in place of one that has its tuple.
    pub(super) fn insert_flow(&mut self, flow: FlowDirection) -> Result<(), PacketError> {
        self.store_flow(flow, 0).map_err(map_error("flows"))
    }

    /// Stores a direction of a flow, unless one has its tuple. Returns whether it was stored.
    pub(super) fn add_flow(&mut self, flow: FlowDirection) -> Result<bool, PacketError> {
        match self.store_flow(flow, BPF_NOEXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(false)
            }
            Err(error) => Err(map_error("flows")(error)),
        }
    }

    fn store_flow(&mut self, flow: FlowDirection, flags: u64) -> Result<(), MapError> {
        let value: [u8; 48] = transmute!(flow.to_raw());
        if let Some(key) = RawTupleIpv4::from_tuple(&flow.tuple) {
            let key: [u8; 16] = transmute!(key);
            return self.flows_ipv4.insert(key, value, flags);
        }
        let key: [u8; 40] = transmute!(flow.tuple);
        self.flows_ipv6.insert(key, value, flags)
    }

    pub(super) fn remove_flow(&mut self, tuple: &RawTuple) -> Result<(), PacketError> {
        let removed = match RawTupleIpv4::from_tuple(tuple) {
            Some(key) => if_present(self.flows_ipv4.remove(&transmute!(key))),
            None => if_present(self.flows_ipv6.remove(&transmute!(*tuple))),
        };
        removed.map_err(map_error("flows")).map(drop)
    }

    /// Reads both directions of all flows. One that comes or goes meanwhile may be missing or there twice.
    pub(super) fn flows(&self) -> impl Iterator<Item = Result<FlowDirection, PacketError>> + '_ {
        let of_ipv4 = self.flows_ipv4.iter().map(|entry| {
            let (key, value) = entry.map_err(map_error("flows"))?;
            let key: RawTupleIpv4 = transmute!(key);
            Ok(FlowDirection::from_raw(key.into(), transmute!(value)))
        });
        let of_ipv6 = self.flows_ipv6.iter().map(|entry| {
            let (key, value) = entry.map_err(map_error("flows"))?;
            Ok(FlowDirection::from_raw(transmute!(key), transmute!(value)))
        });
        of_ipv4.chain(of_ipv6)
    }

    pub(super) fn services(&self) -> Result<Vec<(RawServiceKey, RawService)>, PacketError> {
        let entries = self.services.iter().map(|entry| {
            let (key, value) = entry.map_err(map_error("services"))?;
            Ok((transmute!(key), transmute!(value)))
        });
        entries.collect()
    }

    pub(super) fn set_service(
        &mut self,
        key: &RawServiceKey,
        service: &RawService,
    ) -> Result<(), PacketError> {
        let (key, value): ([u8; 20], [u8; 24]) = (transmute!(*key), transmute!(*service));
        self.services.insert(key, value, 0).map_err(map_error("services"))
    }

    pub(super) fn remove_service(&mut self, key: &RawServiceKey) -> Result<(), PacketError> {
        let key: [u8; 20] = transmute!(*key);
        if_present(self.services.remove(&key)).map_err(map_error("services")).map(drop)
    }

    pub(super) fn server(&self, index: u32) -> Result<RawServer, PacketError> {
        let server = self.servers.get(&index, 0).map_err(map_error("servers"))?;
        Ok(transmute!(server))
    }

    pub(super) fn set_server(&mut self, index: u32, server: &RawServer) -> Result<(), PacketError> {
        let value: [u8; 52] = transmute!(*server);
        self.servers.set(index, value, 0).map_err(map_error("servers"))
    }

    /// Replaces the table of a service, whole.
    pub(super) fn set_table(&mut self, service: u32, slots: &[u32]) -> Result<(), PacketError> {
        let len = u32::try_from(slots.len()).unwrap_or(u32::MAX).max(1);
        let mut table = Array::create(len, BPF_F_INNER_MAP).map_err(map_error("tables"))?;
        for (slot, server) in (0..).zip(slots) {
            table.set(slot, server, 0).map_err(map_error("tables"))?;
        }
        self.tables.set(service, &table, 0).map_err(map_error("tables"))
    }

    /// Returns the other ends of pairs, by the number of the device.
    pub(super) fn peers(&self) -> Result<BTreeMap<u32, RawPeer>, PacketError> {
        let entries = self.peers.iter().map(|entry| {
            let (device, peer) = entry.map_err(map_error("peers"))?;
            Ok((device, transmute!(peer)))
        });
        entries.collect()
    }

    pub(super) fn set_peer(&mut self, device: u32, peer: &RawPeer) -> Result<(), PacketError> {
        let peer: [u8; 12] = transmute!(*peer);
        self.peers.insert(device, peer, 0).map_err(map_error("peers"))
    }

    pub(super) fn remove_peer(&mut self, device: u32) -> Result<(), PacketError> {
        self.peers.remove(&device).map_err(map_error("peers"))
    }

    /// Returns the devices whose frames the XDP program gets, by their slots.
    pub(super) fn xdp_devices(&self) -> Result<BTreeMap<u32, RawXdpDevice>, PacketError> {
        let mut devices = BTreeMap::new();
        for slot in 0..XDP_DEVICE_SLOTS {
            let device = self.xdp_devices.get(&slot, 0).map_err(map_error("xdp_devices"))?;
            let device: RawXdpDevice = transmute!(device);
            if device.ifindex != 0 {
                devices.insert(slot, device);
            }
        }
        Ok(devices)
    }

    /// Has no slot be that of a device.
    pub(super) fn clear_xdp_devices(&mut self) -> Result<(), PacketError> {
        for slot in self.xdp_devices()?.into_keys() {
            self.set_xdp_device(slot, &RawXdpDevice::default())?;
        }
        Ok(())
    }

    /// Has a slot be that of a device, or of none.
    pub(super) fn set_xdp_device(
        &mut self,
        slot: u32,
        device: &RawXdpDevice,
    ) -> Result<(), PacketError> {
        let device: [u8; 12] = transmute!(*device);
        self.xdp_devices.set(slot, device, 0).map_err(map_error("xdp_devices"))
    }

    /// Returns what all processors have counted of a server.
    pub(super) fn server_counters(&self, index: u32) -> Result<RawServerCounters, PacketError> {
        let counted = self.server_counts.get(&index, 0).map_err(map_error("server_counts"))?;
        let mut sum = RawServerCounters::default();
        for counters in counted.iter() {
            let counters: RawServerCounters = transmute!(*counters);
            sum.connections += counters.connections;
            sum.packets_in += counters.packets_in;
            sum.bytes_in += counters.bytes_in;
            sum.packets_out += counters.packets_out;
            sum.bytes_out += counters.bytes_out;
        }
        Ok(sum)
    }

    /// Sets what all processors have counted of a server to zero.
    pub(super) fn clear_server_counters(&mut self, index: u32) -> Result<(), PacketError> {
        let counted = self.server_counts.get(&index, 0).map_err(map_error("server_counts"))?;
        let zeros = counted.iter().map(|_| [0; 40]).collect::<Vec<_>>();
        let error = |source| PacketError::Map { map: "server_counts", reason: format!("{source}") };
        let zeros = aya::maps::PerCpuValues::try_from(zeros).map_err(error)?;
        self.server_counts.set(index, zeros, 0).map_err(map_error("server_counts"))
    }

    /// Returns what all processors have counted under a number of the program.
    pub(super) fn count(&self, counter: u32) -> Result<u64, PacketError> {
        let counted = self.counts.get(&counter, 0).map_err(map_error("counts"))?;
        Ok(counted.iter().sum())
    }

    /// Adds to a counter to which the program does not.
    pub(super) fn add_to_count(&mut self, counter: u32, added: u64) -> Result<(), PacketError> {
        let counted = self.counts.get(&counter, 0).map_err(map_error("counts"))?;
        // All of it in the first processor's.
        let values = counted.iter().enumerate();
        let values: Vec<_> =
            values.map(|(n, value)| if n == 0 { *value + added } else { *value }).collect();
        let error = |source| PacketError::Map { map: "counts", reason: format!("{source}") };
        let values = aya::maps::PerCpuValues::try_from(values).map_err(error)?;
        self.counts.set(counter, values, 0).map_err(map_error("counts"))
    }

    pub(super) fn control(&self) -> Result<RawControl, PacketError> {
        let control = self.control.get(&0, 0).map_err(map_error("control"))?;
        Ok(transmute!(control))
    }

    pub(super) fn set_control(&mut self, control: &RawControl) -> Result<(), PacketError> {
        let value: [u8; 24] = transmute!(*control);
        self.control.set(0, value, 0).map_err(map_error("control"))
    }

    /// Says that no packet waits to be decided.
    pub(super) fn clear_waiting_upcalls(&mut self) -> Result<(), PacketError> {
        self.waiting_upcalls.set(0, 0, 0).map_err(map_error("waiting_upcalls"))
    }

    /// Returns whether it is known how many places there are for flows that nobody is assured of.
    pub(super) fn has_place_rings(&self) -> Result<bool, PacketError> {
        let ring = self.place_rings.get(&1, 0).map_err(map_error("place_rings"))?;
        let ring: RawPlaceRing = transmute!(ring);
        Ok(ring.places != 0)
    }

    /// Says how many such places there are for each family, IPv4 first.
    pub(super) fn set_place_rings(&mut self, places: [u32; 2]) -> Result<(), PacketError> {
        for (family, places) in (0..).zip(places) {
            let ring = RawPlaceRing { next: 0, places: places.into() };
            let value: [u8; 16] = transmute!(ring);
            self.place_rings.set(family, value, 0).map_err(map_error("place_rings"))?;
        }
        Ok(())
    }

    /// Returns the oldest event that was not returned before.
    pub(super) fn next_event(&mut self) -> Option<RawEvent> {
        let item = self.events.next()?;
        Some(RawEvent::read_from_prefix(&item).map_or_else(|_| RawEvent::default(), |(it, _)| it))
    }

    /// Returns what becomes readable when many events wait.
    pub(super) fn events_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.events)
    }
}

// The sizes above.
const _: () = assert!(size_of::<RawPeer>() == 12 && size_of::<RawXdpDevice>() == 12);
const _: () = assert!(size_of::<RawTuple>() == 40 && size_of::<RawTupleIpv4>() == 16);
const _: () = assert!(size_of::<RawFlow>() == 48);
const _: () = assert!(size_of::<RawServiceKey>() == 20 && size_of::<RawService>() == 24);
const _: () = assert!(size_of::<RawServer>() == 52 && size_of::<RawServerCounters>() == 40);
const _: () = assert!(size_of::<RawControl>() == 24 && size_of::<RawPlaceRing>() == 16);
