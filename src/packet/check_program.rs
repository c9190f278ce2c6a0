//! The program for packets of health checks, at the egress of the loopback device, and the routes that lead them there.
//!
//! A check connects to the virtual address by packets with a mark. Where this machine has the address, they pass the
//! loopback device anyway; where it does not, a rule for the marks leads them there. The number of the first mark is that
//! of the routing table, too, so that engines with other marks have another table.

use std::collections::BTreeSet;
use std::io;

use aya::programs::tc::SchedClassifierLink;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::error::PacketError;
use super::layout::MAX_SERVERS;
use super::netlink::RouteSocket;
use super::program::PacketProgram;

/// The priority of the rules: the letters "lv".
const PRIORITY: u32 = 0x6c76;
/// The number of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

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
        netlink: &mut RouteSocket,
        first_mark: u32,
        family: AddressFamily,
    ) -> Result<(), PacketError> {
        self.families.insert(family.into());
        for message in [
            RouteNetlinkMessage::NewRoute(loopback_route(family, first_mark)),
            RouteNetlinkMessage::NewRule(mark_rule(family, first_mark)),
        ] {
            match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(PacketError::Netlink { source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Leads packets of a family no more.
    pub(super) fn remove_route(
        &mut self,
        netlink: &mut RouteSocket,
        first_mark: u32,
        family: AddressFamily,
    ) {
        if self.families.remove(&family.into()) {
            remove(netlink, family, first_mark);
        }
    }

    /// Detaches the program where it does not stay by itself.
    pub(super) fn detach(&mut self) {
        if self.link.take().is_some() {
            self.is_attached = false;
        }
    }
}

/// Removes a rule and its route. What another program has removed is gone already.
fn remove(netlink: &mut RouteSocket, family: AddressFamily, first_mark: u32) {
    for message in [
        RouteNetlinkMessage::DelRule(mark_rule(family, first_mark)),
        RouteNetlinkMessage::DelRoute(loopback_route(family, first_mark)),
    ] {
        let _ = netlink.change(message, 0);
    }
}

/// Removes the rules and routes of all engines of the network namespace. One that lives makes its own again within a
/// second.
pub(super) fn remove_all_routes(netlink: &mut RouteSocket) -> io::Result<()> {
    for rule in netlink.rules()? {
        let (mut mark, mut table, mut priority) = (None, None, None);
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::FwMark(it) => mark = Some(*it),
                RuleAttribute::Table(it) => table = Some(*it),
                RuleAttribute::Priority(it) => priority = Some(*it),
                _ => {}
            }
        }
        if let (Some(mark), true, Some(PRIORITY)) = (mark, mark == table, priority) {
            remove(netlink, rule.header.family, mark);
        }
    }
    Ok(())
}

/// Every address is this machine's own.
fn loopback_route(family: AddressFamily, first_mark: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    message.header.protocol = RouteProtocol::Static;
    message.attributes = vec![RouteAttribute::Table(first_mark), RouteAttribute::Oif(LOOPBACK)];
    message
}

/// Packets with a mark of the checks are routed by the table.
fn mark_rule(family: AddressFamily, first_mark: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::FwMark(first_mark),
        RuleAttribute::FwMask(!(MAX_SERVERS - 1)),
        RuleAttribute::Table(first_mark),
        RuleAttribute::Priority(PRIORITY),
    ];
    message
}
