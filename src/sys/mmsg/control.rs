//! Control messages: local addresses and the sizes of segments (`cmsg(3)`).

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{c_int, msghdr};

use super::received::ReceivedDatagram;

/// The size of a buffer for the address and the segment size of one message.
pub(super) const CONTROL_BUFFER_BYTES: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlBuffer(pub(super) [u8; CONTROL_BUFFER_BYTES]);

pub(super) fn read_control_messages(header: &msghdr, received: &mut ReceivedDatagram) {
    // SAFETY: the kernel has filled `msg_controllen` bytes of the buffer that the header points to,
    // which is alive: it belongs to the same `DatagramBatch`. The macros stay within that length, and
    // the data behind a header has the type that its level and type name; it is copied unaligned.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = next.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (control.cmsg_level, control.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    // For a broadcast this is the address of the interface, from which a reply can
                    // be sent; otherwise it is the destination.
                    let ip = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                    // The kernel leaves it empty for a datagram without a route, as some on loopback.
                    let destination = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    let ip = if ip.is_unspecified() { destination } else { ip };
                    received.local = (!ip.is_multicast()).then_some(ip.into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    received.local = (!ip.is_multicast()).then_some(ip.into());
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size: c_int = data.cast::<c_int>().read_unaligned();
                    received.segment_size = usize::try_from(size).unwrap_or(0);
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// Writes the control messages of one message and returns their length.
pub(super) fn write_control_messages(
    control: &mut ControlBuffer,
    from: Option<IpAddr>,
    segment: usize,
) -> usize {
    let mut used = 0;
    match from {
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; size_of::<libc::in_pktinfo>()];
            let at = offset_of!(libc::in_pktinfo, ipi_spec_dst);
            info[at..at + 4].copy_from_slice(&ip.octets());
            used += write_control_message(
                &mut control.0[used..],
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                &info,
            );
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; size_of::<libc::in6_pktinfo>()];
            let at = offset_of!(libc::in6_pktinfo, ipi6_addr);
            info[at..at + 16].copy_from_slice(&ip.octets());
            used += write_control_message(
                &mut control.0[used..],
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                &info,
            );
        }
        None => {}
    }
    if segment != 0 {
        let size = (segment as u16).to_ne_bytes();
        used +=
            write_control_message(&mut control.0[used..], libc::SOL_UDP, libc::UDP_SEGMENT, &size);
    }
    used
}

/// Writes one control message with padding for the next one, and returns its length.
fn write_control_message(into: &mut [u8], level: c_int, kind: c_int, data: &[u8]) -> usize {
    // SAFETY: arithmetic only.
    let (space, length, offset) = unsafe {
        let length = data.len() as libc::c_uint;
        let offset = libc::CMSG_LEN(0);
        (libc::CMSG_SPACE(length) as usize, libc::CMSG_LEN(length) as usize, offset as usize)
    };
    let at = offset_of!(libc::cmsghdr, cmsg_len);
    into[at..at + size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
    let at = offset_of!(libc::cmsghdr, cmsg_level);
    into[at..at + 4].copy_from_slice(&level.to_ne_bytes());
    let at = offset_of!(libc::cmsghdr, cmsg_type);
    into[at..at + 4].copy_from_slice(&kind.to_ne_bytes());
    into[offset..offset + data.len()].copy_from_slice(data);
    space
}

/// Two control messages of the largest kind fit, and `cmsg_len` is as wide as [`write_control_message`] writes it.
const _: () = {
    let header = size_of::<libc::cmsghdr>();
    let padded = size_of::<libc::in6_pktinfo>().next_multiple_of(size_of::<usize>());
    assert!(CONTROL_BUFFER_BYTES >= header + padded + header + size_of::<usize>());
    assert!(offset_of!(libc::cmsghdr, cmsg_level) >= size_of::<usize>());
};
