//! Tap and tun devices: network devices whose other end is a process, and which end with it.
#![expect(unsafe_code, reason = "ioctl(2) takes pointers")]

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// What the reader can take from the kernel: checksums that are not computed, and packets that are joined from
/// several (`TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_TSO_ECN`).
#[cfg(feature = "packet")]
const OFFLOADS: libc::c_uint = 0xf;
/// Joined datagrams of UDP (`TUN_F_USO4`, `TUN_F_USO6`), since Linux 6.2.
#[cfg(feature = "packet")]
const UDP_OFFLOADS: libc::c_uint = 0x60;
#[cfg(feature = "packet")]
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;

/// Makes a tap device with the first free name of a pattern such as `lvs%d`, and returns its file and its name.
/// The device is in the network namespace of the calling thread, and is gone when the file is closed. Each frame
/// that is read or written has a `virtio_net_hdr` of 10 octets before it. Reading does not block.
#[cfg(feature = "packet")]
pub(crate) fn open_tap(pattern: &CStr) -> io::Result<(File, String)> {
    let (file, name) = attach(pattern, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?;
    let set_offloads = |offloads: libc::c_uint| {
        // SAFETY: the argument is a number; the file is open.
        check(unsafe {
            libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(offloads))
        })
    };
    set_offloads(OFFLOADS | UDP_OFFLOADS).or_else(|_| set_offloads(OFFLOADS))?;
    Ok((file, name))
}

/// Makes a tun device of this name, or joins the one that other processes of this crate have made. The device is in
/// the network namespace of the calling thread, and is gone when the last of their files is closed.
#[cfg(feature = "announce")]
pub(crate) fn open_shared_tun(name: &CStr) -> io::Result<File> {
    let (file, _) = attach(name, libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE)?;
    Ok(file)
}

/// Opens a device, and returns its file and its name.
fn attach(pattern: &CStr, flags: libc::c_int) -> io::Result<(File, String)> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: all octets 0 are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = pattern.to_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the pointer is to a live `ifreq`, into which the call writes the name; the file is open.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().take_while(|octet| **octet != 0);
    let name = name.map(|octet| *octet as u8).collect::<Vec<_>>();
    Ok((file, String::from_utf8_lossy(&name).into_owned()))
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
