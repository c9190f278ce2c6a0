//! The devices at whose drivers frames are carried.

use std::collections::BTreeMap;
use std::fs;

use netlink_packet_route::link::InfoKind;

use super::worker::PacketWorker;
use crate::packet::error::PacketError;
use crate::packet::layout::{
    RawXdpDevice, XDP_DEVICE_REDIRECTS, XDP_DEVICE_SENDS, XDP_DEVICE_SENDS_MULTI_BUFFER,
    XDP_DEVICE_SLOTS,
};
use crate::packet::netlink::NetworkDevice;
use crate::packet::xdp_features::driver_flags;
use crate::packet::xdp_mode::XdpMode;

/// What the kernel itself does with frames in the generic mode.
const GENERIC_FLAGS: u16 = XDP_DEVICE_REDIRECTS | XDP_DEVICE_SENDS | XDP_DEVICE_SENDS_MULTI_BUFFER;

impl PacketWorker {
    /// Attaches the XDP program to the devices of the settings, and detaches it from others. One that does not take it is
    /// reported once, and carries packets without.
    pub(super) fn follow_xdp_devices(
        &mut self,
        present: &[NetworkDevice],
    ) -> Result<(), PacketError> {
        // A successor has other settings.
        if self.is_superseded() {
            return Ok(());
        }
        let wanted = present.iter().filter(|it| self.settings.xdp_devices.contains(&it.name));
        let wanted: BTreeMap<_, _> = wanted.map(|device| (device.index, device)).collect();
        self.xdp_devices.retain(|index, _| wanted.contains_key(index));
        self.program.retain_xdp_devices(|index| wanted.contains_key(&index));
        let mut slots = BTreeMap::new();
        for (index, device) in wanted {
            let slot = index % XDP_DEVICE_SLOTS;
            if let Some(flags) = self.follow_xdp_device(device, present, slots.contains_key(&slot))
                && let Ok(mac) = device.mac.as_slice().try_into()
            {
                slots.insert(slot, RawXdpDevice { ifindex: index, mac, flags });
            }
        }
        let known = self.maps.xdp_devices()?;
        for slot in known.keys().filter(|slot| !slots.contains_key(slot)) {
            self.maps.set_xdp_device(*slot, &RawXdpDevice::default())?;
        }
        for (slot, device) in slots {
            if known.get(&slot) != Some(&device) {
                self.maps.set_xdp_device(slot, &device)?;
            }
        }
        Ok(())
    }

    /// Attaches the program to a device if it can be. Returns what its driver does; `None` if it has no program.
    fn follow_xdp_device(
        &mut self,
        device: &NetworkDevice,
        present: &[NetworkDevice],
        is_slot_taken: bool,
    ) -> Option<u16> {
        let index = device.index;
        let known = self.xdp_devices.get(&index).copied();
        if known == Some(None) {
            return None;
        }
        let is_native = self.settings.xdp_mode == XdpMode::Native;
        let reason = reason_against(device, present, is_native)
            .or(is_slot_taken
                .then_some("its index is the same, modulo 256, as that of another one"));
        let state = match (reason, known) {
            (Some(reason), _) => {
                self.program.retain_xdp_devices(|other| other != index);
                Err(PacketError::Attach { device: device.name.clone(), reason: reason.to_owned() })
            }
            // A successor may have detached it, which has other settings.
            (None, Some(flags)) => return flags.filter(|_| self.program.has_xdp(index)),
            (None, None) => self.attach_xdp(device, is_native),
        };
        let flags = state.map_err(|error| {
            tracing::warn!(
                "engine packet: {} carries packets without XDP until it was down, or the process starts again: \
                 {error}",
                device.name
            );
        });
        let flags = flags.ok();
        self.xdp_devices.insert(index, flags);
        flags
    }

    fn attach_xdp(&mut self, device: &NetworkDevice, is_native: bool) -> Result<u16, PacketError> {
        self.program.attach_xdp(device.index, &device.name)?;
        warn_of_forwarding(&device.name);
        // What a driver does may begin with the program.
        let flags = if is_native { driver_flags(device.index) } else { GENERIC_FLAGS };
        if flags & XDP_DEVICE_REDIRECTS == 0 || flags & XDP_DEVICE_SENDS == 0 {
            tracing::warn!(
                "engine packet: {} carries at XDP only packets that leave by the device that they came in by: its \
                 driver does not redirect frames, or does not send redirected ones, or the kernel is older than Linux \
                 6.3 and does not tell",
                device.name
            );
        }
        Ok(flags)
    }
}

/// Returns why a device cannot have the program, though its driver may take it.
fn reason_against(
    device: &NetworkDevice,
    present: &[NetworkDevice],
    is_native: bool,
) -> Option<&'static str> {
    let is_on_it = |other: &NetworkDevice| {
        other.kind == Some(InfoKind::Vlan) && other.lower == Some(device.index)
    };
    match &device.kind {
        _ if !device.is_ethernet => Some("it has no Ethernet"),
        _ if present.iter().any(is_on_it) => {
            Some("it has a VLAN device, whose tags the network card may take off")
        }
        Some(InfoKind::Veth | InfoKind::Netkit) if is_native => {
            Some("one end of a pair of devices (veth, netkit) has no native XDP here")
        }
        Some(InfoKind::Bond | InfoKind::Team) => {
            Some("it is a bond or a team, whose frames come in by its member devices")
        }
        _ => None,
    }
}

/// The kernel tells programs no next hop at a device before it may forward packets of the family there.
fn warn_of_forwarding(device: &str) {
    for (family, name) in [("ipv4", "IPv4"), ("ipv6", "IPv6")] {
        let path = format!("/proc/sys/net/{family}/conf/{device}/forwarding");
        if fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
            tracing::warn!(
                "engine packet: packets of {name} that leave by {device} are carried without XDP, while \
                 net.{family}.conf.{device}.forwarding is 0"
            );
        }
    }
}
