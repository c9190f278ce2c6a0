//! The rules and routes that lead packets of health checks to the loopback device.
//!
//! A check connects to the virtual address by packets with a mark. Where this machine has the address, they pass the
//! loopback device anyway; where it does not, a rule for the marks leads them there. The number of the first mark is that
//! of the routing table, too, so that engines with other marks have another table.

use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::layout::MAX_SERVERS;
use crate::rtnetlink::RtnetlinkSocket;

/// The priority of the rules: the letters "lv".
const PRIORITY: u32 = 0x6c76;
/// The number of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

/// Leads packets of a family with the marks from a first one on to the loopback device. What is there already stays.
pub(super) fn add_routes(
    netlink: &mut RtnetlinkSocket,
    family: AddressFamily,
    first_mark: u32,
) -> io::Result<()> {
    for message in [
        RouteNetlinkMessage::NewRoute(loopback_route(family, first_mark)),
        RouteNetlinkMessage::NewRule(mark_rule(family, first_mark)),
    ] {
        match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes a rule and its route. What another program has removed is gone already.
pub(super) fn remove_routes(netlink: &mut RtnetlinkSocket, family: AddressFamily, first_mark: u32) {
    for message in [
        RouteNetlinkMessage::DelRule(mark_rule(family, first_mark)),
        RouteNetlinkMessage::DelRoute(loopback_route(family, first_mark)),
    ] {
        let _ = netlink.change(message, 0);
    }
}

/// Removes the rules and routes of all engines of the network namespace. One that lives makes its own again within a
/// second.
pub(super) fn remove_all_routes(netlink: &mut RtnetlinkSocket) -> io::Result<()> {
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
            remove_routes(netlink, rule.header.family, mark);
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
