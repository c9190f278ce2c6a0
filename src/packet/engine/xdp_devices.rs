//! The devices at whose drivers frames are carried.

use std::fs;

use super::worker::PacketWorker;
use crate::packet::error::PacketError;
use crate::packet::layout::{RawXdpDevice, XDP_DEVICE_SENDS_PIECES, XDP_DEVICE_SLOTS};
use crate::packet::netlink::NetworkDevice;
use crate::packet::xdp_features::sends_pieces;
use crate::packet::xdp_mode::XdpMode;

impl PacketWorker {
    /// Attaches the program for frames to the devices of the settings, and detaches it from others. One that does not take
    /// it is reported once, and carries packets without.
    pub(super) fn follow_xdp_devices(
        &mut self,
        present: &[NetworkDevice],
    ) -> Result<(), PacketError> {
        let wanted = present.iter().filter(|it| self.settings.xdp_devices.contains(&it.name));
        let wanted: Vec<_> = wanted.collect();
        let is_wanted = |index: u32| wanted.iter().any(|device| device.index == index);
        self.refused_xdp_devices.retain(|index| is_wanted(*index));
        let mut known = self.maps.xdp_devices()?;
        for (slot, _) in known.extract_if(.., |_, device| !is_wanted(device.ifindex)) {
            // Frames are sent to it no more.
            self.maps.set_xdp_device(slot, &RawXdpDevice::default())?;
        }
        let attached: Vec<_> = self.program.xdp_devices().keys().copied().collect();
        for index in attached.into_iter().filter(|index| !is_wanted(*index)) {
            self.program.detach_xdp(index);
        }
        for device in wanted {
            let index = device.index;
            if self.refused_xdp_devices.contains(&index) {
                continue;
            }
            let slot = index % XDP_DEVICE_SLOTS;
            let is_taken = known.get(&slot).is_some_and(|other| other.ifindex != index);
            let is_new = !self.program.xdp_devices().contains_key(&index);
            if let Err(error) = self.attach_xdp(device, is_taken) {
                tracing::warn!(
                    "engine packet: {} carries packets without XDP: {error}",
                    device.name
                );
                self.refused_xdp_devices.insert(index);
                continue;
            }
            if is_new {
                warn_of_forwarding(&device.name);
            }
            let Ok(mac) = device.mac.as_slice().try_into() else { continue };
            let flags = if sends_pieces(index) { XDP_DEVICE_SENDS_PIECES } else { 0 };
            let raw = RawXdpDevice { ifindex: index, mac, flags };
            if known.insert(slot, raw) != Some(raw) {
                self.maps.set_xdp_device(slot, &raw)?;
            }
        }
        Ok(())
    }

    fn attach_xdp(&mut self, device: &NetworkDevice, is_taken: bool) -> Result<(), PacketError> {
        if is_taken {
            let reason =
                format!("the number of another one differs by a multiple of {XDP_DEVICE_SLOTS}");
            return Err(PacketError::Attach { device: device.name.clone(), reason });
        }
        if device.is_pair && self.settings.xdp_mode == XdpMode::Native {
            // Its other end would not be told to complete checksums, would join no segments, and would take no frames
            // without a program of its own.
            let reason =
                "one end of a pair of devices (veth, netkit) has no native XDP here".to_owned();
            return Err(PacketError::Attach { device: device.name.clone(), reason });
        }
        if !device.is_ethernet {
            let reason = "it has no Ethernet".to_owned();
            return Err(PacketError::Attach { device: device.name.clone(), reason });
        }
        self.program.attach_xdp(device.index, &device.name)
    }
}

/// The kernel tells the way out at a device to no program before it may forward packets of the family there.
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
