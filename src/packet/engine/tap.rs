//! The tap device by which packets come up to be decided, and return.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use crate::packet::error::PacketError;
use crate::packet::netlink::NetworkDevice;
use crate::rtnetlink::RtnetlinkSocket;
use crate::sys::tuntap::open_tap;

/// The header before each frame (`virtio_net_hdr`).
pub(super) const HEADER_LEN: usize = 10;
/// The longest frame: packets that the kernel has joined have up to 64 KiB.
pub(super) const MAX_FRAME_LEN: usize = HEADER_LEN + 18 + (64 << 10);

/// The tap device.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
    pub(super) device: NetworkDevice,
}

impl Tap {
    /// Makes the device, and sets it up.
    pub(super) fn open(netlink: &mut RtnetlinkSocket) -> Result<Self, PacketError> {
        let mut open = || {
            let (file, name) = open_tap(c"lvs%d")?;
            // The stack sends nothing of its own to it, and takes what the director refuses.
            for (setting, value) in [
                (format!("ipv6/conf/{name}/addr_gen_mode"), "1"),
                (format!("ipv6/conf/{name}/accept_ra"), "0"),
                (format!("ipv4/conf/{name}/rp_filter"), "0"),
            ] {
                // Without IPv6 there is no such setting.
                let _ = std::fs::write(format!("/proc/sys/net/{setting}"), value);
            }
            let device = netlink.device(&name)?;
            netlink.set_up(device.index)?;
            Ok(Self { file, device })
        };
        open().map_err(|source| PacketError::Tap { source })
    }

    /// Reads a frame with its header; `None` if none waits.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a mut [u8]>> {
        match (&self.file).read(buffer) {
            Ok(len) => Ok(buffer.get_mut(..len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame with its header, as if the device had received it.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write(frame).map(drop)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
