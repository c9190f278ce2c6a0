//! The program for packets of health checks, at the egress of the loopback device, and the routes that lead them there.
//!
//! A check connects to the virtual address by packets with a mark. Where this machine has the address, they pass the
//! loopback device anyway; where it does not, a rule for the marks leads them there.

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

/// The routing table of packets with a mark, and the priority of the rule: the letters "lv".
const TABLE: u32 = 0x6c76;
/// The number of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

/// What leads packets of checks to servers. It ends when [`end`](Self::end) is called; the program ends with the
/// process in any case, while a rule that is left leads packets with the marks to this machine.
#[derive(Debug, Default)]
pub(super) struct CheckProgram {
    link: Option<SchedClassifierLink>,
    /// The families that have a rule.
    families: BTreeSet<u8>,
}

impl CheckProgram {
    /// Leads packets of families to servers, by the first of the marks. A rule that is gone is made again: an earlier
    /// process, too, removes it at its end.
    pub(super) fn begin(
        &mut self,
        program: &mut PacketProgram,
        netlink: &mut RouteSocket,
        first_mark: u32,
        families: &[AddressFamily],
    ) -> Result<(), PacketError> {
        if self.link.is_none() {
            self.link = Some(program.attach_checks()?);
        }
        for family in families {
            let netlink_error = |source| PacketError::Netlink { source };
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            let route = RouteNetlinkMessage::NewRoute(loopback_route(*family));
            allow(netlink.change(route, flags), io::ErrorKind::AlreadyExists)
                .map_err(netlink_error)?;
            let rule = RouteNetlinkMessage::NewRule(mark_rule(*family, first_mark));
            allow(netlink.change(rule, flags), io::ErrorKind::AlreadyExists)
                .map_err(netlink_error)?;
            self.families.insert(u8::from(*family));
        }
        Ok(())
    }

    /// Undoes it all. What another program has removed is gone already.
    pub(super) fn end(&mut self, netlink: &mut RouteSocket, first_mark: u32) {
        for family in std::mem::take(&mut self.families) {
            let family = AddressFamily::from(family);
            for message in [
                RouteNetlinkMessage::DelRule(mark_rule(family, first_mark)),
                RouteNetlinkMessage::DelRoute(loopback_route(family)),
            ] {
                let _ = netlink.change(message, 0);
            }
        }
        self.link = None;
    }
}

/// Takes one kind of error for success.
fn allow(result: io::Result<()>, kind: io::ErrorKind) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        result => result,
    }
}

/// Every address is this machine's own.
fn loopback_route(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    message.header.protocol = RouteProtocol::Static;
    message.attributes = vec![RouteAttribute::Table(TABLE), RouteAttribute::Oif(LOOPBACK)];
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
        RuleAttribute::Table(TABLE),
        RuleAttribute::Priority(TABLE),
    ];
    message
}
