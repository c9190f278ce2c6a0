//! What the thread knows of a flow, and how flows end.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Lease;
use crate::backend::Outcome;
use crate::engine::EngineFlowEnd;
use crate::packet::flow_direction::FlowDirection;
use crate::packet::layout::{PROTOCOL_TCP, RawEvent, RawTuple, flow_state};
use crate::packet::settings::PacketSettings;

/// The entries of a flow in the kernel: one for each direction, and one alone by direct routing.
pub(super) const ENTRIES_PER_FLOW: usize = 2;

/// What is known of a flow, by the tuple of the client's packets.
#[derive(Debug)]
pub(super) struct PacketFlow {
    /// `None` when the flow has ended, for the sorry server, and for a server that the set does not have.
    pub(super) lease: Option<Lease<SocketAddr>>,
    pub(super) server: u32,
    pub(super) service: u32,
    /// Nanoseconds of the monotonic clock.
    pub(super) begun_at: u64,
    pub(super) is_answered: bool,
    pub(super) is_over: bool,
    /// Whether the server answers the client by itself.
    pub(super) is_direct: bool,
    /// Whether the engine of another machine was told of it.
    pub(super) is_told: bool,
    /// The number of the round in which the machine that has it told of it last; `None` for a flow of this machine.
    pub(super) round: Option<u32>,
    /// When another machine said last that it is there, in nanoseconds of the monotonic clock.
    pub(super) confirmed_at: u64,
    /// The second in which it is looked at next.
    pub(super) due: u64,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowEnding {
    pub(super) end: EngineFlowEnd,
    pub(super) outcome: Outcome,
    /// Nanoseconds of the monotonic clock.
    pub(super) at: u64,
    /// Octets to the server and to the client, where they are known.
    pub(super) bytes: [Option<u64>; 2],
}

/// A flow that has ended, of a service that has records written.
#[derive(Debug)]
pub(super) struct EndedFlow {
    pub(super) tuple: RawTuple,
    pub(super) server: u32,
    pub(super) service: u32,
    pub(super) total_time: Duration,
    pub(super) ending: FlowEnding,
}

impl PacketFlow {
    pub(super) const fn new(
        lease: Option<Lease<SocketAddr>>,
        server: u32,
        service: u32,
        begun_at: u64,
    ) -> Self {
        Self {
            lease,
            server,
            service,
            begun_at,
            is_answered: false,
            is_over: false,
            is_direct: false,
            is_told: false,
            round: None,
            confirmed_at: 0,
            due: 0,
        }
    }

    /// Returns whether an event tells of the decision of this very flow.
    pub(super) const fn is_of(&self, event: &RawEvent) -> bool {
        !self.is_over && self.server == event.server && self.begun_at >= event.at
    }

    /// Returns the record of a flow that the kernel has.
    pub(super) fn found(flow: &FlowDirection, service: u32) -> Self {
        Self {
            is_answered: flow.state & flow_state::ANSWERED != 0,
            is_over: flow.is_over(),
            ..Self::new(None, flow.server, service, flow.seen_at)
        }
    }

    /// Returns whether another machine may have to be told of the flow, which is this one's.
    pub(super) const fn is_to_tell(&self) -> bool {
        !self.is_told && !self.is_over && self.round.is_none()
    }

    /// Returns the number of the kernel's entries, if it has forgotten none.
    pub(super) const fn entries(&self) -> usize {
        if self.is_direct { 1 } else { ENTRIES_PER_FLOW }
    }
}

impl FlowEnding {
    /// Returns how a flow ended whose ends have closed or reset it.
    pub(super) fn of_event(event: &RawEvent, is_answered: bool) -> Self {
        let has = |bits| event.state & bits != 0;
        let end = if has(flow_state::SERVER_RESET) {
            EngineFlowEnd::ServerReset
        } else if has(flow_state::CLIENT_RESET) {
            EngineFlowEnd::ClientReset
        } else {
            EngineFlowEnd::Closed
        };
        let outcome = match (is_answered, end) {
            (false, EngineFlowEnd::ServerReset) => Outcome::ConnectError,
            (false, _) => Outcome::Cancelled,
            (true, EngineFlowEnd::ServerReset) => Outcome::AppError,
            (true, _) => Outcome::Ok,
        };
        let to_client = (!has(flow_state::DIRECT)).then_some(event.bytes_to_client);
        let bytes = [Some(event.bytes_to_server), to_client];
        Self { end, outcome, at: event.at, bytes }
    }

    /// Returns how a flow ended that was forgotten for others.
    pub(super) const fn of_forgotten(event: &RawEvent) -> Self {
        let is_answered = event.state & flow_state::ANSWERED != 0;
        let outcome = if is_answered { Outcome::Ok } else { Outcome::Cancelled };
        let is_direct = event.state & flow_state::DIRECT != 0;
        let to_client = if is_direct { None } else { Some(event.bytes_to_client) };
        let bytes = [Some(event.bytes_to_server), to_client];
        Self { end: EngineFlowEnd::Forgotten, outcome, at: event.at, bytes }
    }

    /// Returns how a flow ended of which no packet was seen for too long.
    pub(super) const fn by_timeout(
        there: &FlowDirection,
        at: u64,
        bytes: [Option<u64>; 2],
    ) -> Self {
        let is_answered = there.state & flow_state::ANSWERED != 0;
        let (end, outcome) = match (is_answered, there.tuple.protocol) {
            (true, _) => (EngineFlowEnd::Idle, Outcome::Ok),
            (false, PROTOCOL_TCP) => (EngineFlowEnd::NoAnswer, Outcome::Timeout),
            // Many protocols of UDP have no answers.
            (false, _) => (EngineFlowEnd::Idle, Outcome::Cancelled),
        };
        Self { end, outcome, at, bytes }
    }
}

/// Returns the time without a packet after which a flow is forgotten.
pub(super) fn timeout(flow: &FlowDirection, settings: &PacketSettings) -> Duration {
    let is_established = flow.state & flow_state::ANSWERED != 0 && !flow.is_over();
    match flow.tuple.protocol {
        PROTOCOL_TCP if is_established => settings.tcp_timeout,
        PROTOCOL_TCP => settings.closing_timeout,
        _ => settings.udp_timeout,
    }
}
