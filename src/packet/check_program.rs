//! The program for packets of health checks, at the egress of the loopback device.

use std::collections::BTreeSet;

use aya::programs::tc::SchedClassifierLink;
use netlink_packet_route::AddressFamily;

use super::check_routes::{add_routes, remove_routes};
use super::error::PacketError;
use super::program::PacketProgram;
use crate::rtnetlink::RtnetlinkSocket;

/// The program at the loopback device, and the families whose packets are led there.
#[derive(Debug, Default)]
pub(super) struct CheckProgram {
    is_attached: bool,
    /// Keeps the program attached; `None` for a filter, which stays by itself.
    link: Option<SchedClassifierLink>,
    families: BTreeSet<u8>,
}

impl CheckProgram {
    /// Attaches the program, if it is not.
    pub(super) fn attach(&mut self, program: &mut PacketProgram) -> Result<(), PacketError> {
        if !self.is_attached {
            self.link = program.attach_checks()?;
            self.is_attached = true;
        }
        Ok(())
    }

    /// Leads packets of a family with the marks from a first one on to the loopback device. What is gone is made again:
    /// another program may have removed it.
    pub(super) fn route(
        &mut self,
        netlink: &mut RtnetlinkSocket,
        first_mark: u32,
        family: AddressFamily,
    ) -> Result<(), PacketError> {
        self.families.insert(family.into());
        add_routes(netlink, family, first_mark).map_err(|source| PacketError::Netlink { source })
    }

    /// Leads packets of a family no more.
    pub(super) fn remove_route(
        &mut self,
        netlink: &mut RtnetlinkSocket,
        first_mark: u32,
        family: AddressFamily,
    ) {
        if self.families.remove(&family.into()) {
            remove_routes(netlink, family, first_mark);
        }
    }

    /// Detaches the program where it does not stay by itself.
    pub(super) fn detach(&mut self) {
        if self.link.take().is_some() {
            self.is_attached = false;
        }
    }
}
