//! Where the kernel sends packets, and which interface has an address.

use std::io;
use std::net::IpAddr;

use crate::rtnetlink::RtnetlinkSocket;

/// Asks the kernel of the network namespace of the thread that opens it.
#[derive(Debug)]
pub(crate) struct RouteLookup(RtnetlinkSocket);

impl RouteLookup {
    pub(crate) fn open() -> io::Result<Self> {
        RtnetlinkSocket::open().map(Self)
    }

    /// Returns the interface by which packets to an address leave.
    pub(crate) fn interface_toward(&mut self, address: IpAddr) -> io::Result<String> {
        let index = self.0.route_interface(address)?;
        self.0.interface_name(index)
    }

    /// Returns the interface that has an address; `None` if this machine does not have it.
    pub(crate) fn interface_of(&mut self, address: IpAddr) -> io::Result<Option<String>> {
        let present = self.0.addresses()?;
        let found = present.iter().find(|present| present.address.ip() == address);
        found.map(|present| self.0.interface_name(present.index)).transpose()
    }
}
