//! What the program is meant to do, in plain Rust: flows by their keys, and frames changed as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::frames::{ACK, ETHERNET_LEN, FIN, RST, SYN};
use super::model_places::ModelPlaces;
use super::model_state::{ModelDirector, ModelEvent, ModelFlow, ModelServer, ModelService};
use super::parsed::{FragmentPart, LeftToStack, PacketKey, ParsedFrame, packet_end};
use super::rewriting::{TranslatedError, rewrite_error, rewrite_ip, rewrite_segment};
use crate::packet::layout::{PROTOCOL_TCP, RawServerCounters, event_kind, flow_state};
use crate::packet::statistics::PacketStatistics;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FrameVerdict {
    /// It is left to the stack.
    Next,
    Drop,
    Redirect,
}

/// A frame after the program.
#[derive(Debug)]
pub(super) struct ModelOutput {
    pub(super) verdict: FrameVerdict,
    pub(super) frame: Vec<u8>,
    /// Offsets of checksums, of which 0 and 0xffff are the same.
    pub(super) checksums: Vec<usize>,
}

#[derive(Debug, Default)]
pub(super) struct ProgramModel {
    pub(super) services: HashMap<(SocketAddr, u8), ModelService>,
    pub(super) addresses: HashSet<IpAddr>,
    pub(super) servers: HashMap<u32, ModelServer>,
    /// In an order, so that a seed finds the same flows each time.
    pub(super) flows: BTreeMap<PacketKey, ModelFlow>,
    pub(super) director: ModelDirector,
    pub(super) statistics: PacketStatistics,
    pub(super) counters: HashMap<u32, RawServerCounters>,
    pub(super) events: Vec<ModelEvent>,
    pub(super) places: ModelPlaces,
    /// The ports of packets that come in fragments, by their addresses, protocol and number.
    fragments: HashMap<(IpAddr, IpAddr, u8, u32), (u16, u16)>,
}

/// The other direction of a flow.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum OtherDirection {
    Present(PacketKey),
    Absent,
    /// What has its key is part of another flow.
    Replaced,
}

impl ProgramModel {
    /// Does what the program does with a frame. `decided` is the server that the program has chosen, if it has
    /// made a flow by a table: the model knows which servers it may choose, and not the hash. `has_flow` tells
    /// whether the program has a direction after the frame: the model does not know the time.
    pub(super) fn run(
        &mut self,
        frame: &[u8],
        decided: Option<u32>,
        has_flow: &dyn Fn(PacketKey) -> bool,
    ) -> ModelOutput {
        let mut output =
            ModelOutput { verdict: FrameVerdict::Next, frame: frame.to_vec(), checksums: vec![] };
        match ParsedFrame::parse(frame) {
            ParsedFrame::Other => {}
            ParsedFrame::Left { destination, reason } => {
                if self.addresses.contains(&destination) {
                    *match reason {
                        LeftToStack::Fragment => &mut self.statistics.fragments,
                        LeftToStack::Options => &mut self.statistics.with_options,
                        LeftToStack::Malformed => &mut self.statistics.malformed,
                    } += 1;
                }
            }
            ParsedFrame::Segment { mut key, transport, hop_limit, tcp_flags, fragment } => {
                if fragment.is_none_or(|fragment| self.pair_fragment(&mut key, fragment)) {
                    let packet = (key, hop_limit, tcp_flags);
                    let is_later = fragment.is_some_and(|fragment| fragment.is_later);
                    let transport = (!is_later).then_some(transport);
                    let seen = (decided, has_flow);
                    output.verdict = self.run_segment(packet, transport, seen, &mut output);
                } else if self.addresses.contains(&key.1.ip()) {
                    self.statistics.fragments += 1;
                }
            }
            ParsedFrame::IcmpError { source, destination, transport, hop_limit, quoted } => {
                if destination == quoted.0.ip() && hop_limit > 1 {
                    let key = (quoted.1, quoted.0, quoted.2);
                    self.begin_for_error(key, decided, has_flow);
                }
                let flow = self.flows.get(&(quoted.1, quoted.0, quoted.2));
                // An error is sent to whom has sent what it quotes.
                if let Some(flow) = flow
                    && destination == quoted.0.ip()
                    && hop_limit > 1
                {
                    if flow.is_direct() {
                        output.checksums = pass_on(&mut output.frame, source, destination);
                        let ends = [source, destination].map(|end| SocketAddr::new(end, 0));
                        self.encapsulate(flow.server, (ends[0], ends[1], 0), &mut output);
                    } else {
                        // The end's own error comes from the end that the other side knows.
                        let is_of_end = source == quoted.1.ip();
                        let error = TranslatedError {
                            source: if is_of_end { flow.source.ip() } else { source },
                            quoted_source: flow.destination,
                            quoted_destination: flow.source,
                        };
                        output.checksums = rewrite_error(&mut output.frame, transport, &error);
                    }
                    output.verdict = FrameVerdict::Redirect;
                    self.statistics.icmp_errors += 1;
                }
            }
        }
        output
    }

    fn run_segment(
        &mut self,
        packet: (PacketKey, u8, u8),
        transport: Option<usize>,
        (decided, has_flow): (Option<u32>, &dyn Fn(PacketKey) -> bool),
        output: &mut ModelOutput,
    ) -> FrameVerdict {
        let (key, hop_limit, tcp_flags) = packet;
        // A client may begin anew with the port of a connection that has ended.
        let begins = tcp_flags & (SYN | ACK) == SYN;
        let is_reused =
            |flow: &ModelFlow| begins && flow.has_begun_to_end() && !flow.is_to_client();
        if self.flows.get(&key).is_none_or(is_reused)
            && let Some(verdict) = self.decide(packet, transport.is_some(), decided, output)
        {
            return verdict;
        }
        let answered = (key, transport.is_some());
        if hop_limit <= 1 {
            return self.answer(answered, None, output);
        }
        if let Some(mtu) = self.exceeded_mtu(&self.flows[&key], packet_end(&output.frame)) {
            return self.answer(answered, Some(mtu), output);
        }
        let len = (packet_end(&output.frame) - ETHERNET_LEN) as u64;
        let flow = self.flows.get_mut(&key).expect("it is there");
        let begins = flow.bytes == 0 && !flow.is_to_client();
        flow.bytes += len;
        let place = begins.then(|| self.places.next(key));
        if let Some(place) = place {
            flow.place = place as u16;
        }
        if flow.is_assured_by(key.2 != PROTOCOL_TCP || tcp_flags & (SYN | RST | ACK) == ACK) {
            flow.state |= flow_state::ASSURED;
        }
        let ended = self.follow_state(key, tcp_flags);
        let flow = self.flows[&key].clone();
        if begins || ended {
            let client = if flow.is_to_client() { flow.back(key.2) } else { key };
            let place = place.unwrap_or_else(|| {
                let place = self.places.next(client);
                if let Some(ended) = self.flows.get_mut(&client) {
                    ended.place = place as u16;
                }
                place
            });
            self.take_place(client, place, has_flow);
        }
        self.keep_other_direction(key, has_flow);
        let counters = self.counters.entry(flow.server).or_default();
        let (packets, bytes) = if flow.is_to_client() {
            (&mut counters.packets_out, &mut counters.bytes_out)
        } else {
            (&mut counters.packets_in, &mut counters.bytes_in)
        };
        *packets += 1;
        *bytes += len;
        let ends = (flow.source, flow.destination, key.2);
        output.checksums = match transport {
            _ if flow.is_direct() => pass_on(&mut output.frame, key.0.ip(), key.1.ip()),
            Some(transport) => rewrite_segment(&mut output.frame, transport, &ends),
            // Ports and checksum are in the first fragment.
            None => rewrite_ip(&mut output.frame, ends.0.ip(), ends.1.ip()).into_iter().collect(),
        };
        if flow.is_direct() {
            self.encapsulate(flow.server, key, output);
        }
        FrameVerdict::Redirect
    }

    /// Remembers the ports of a first fragment, or finds those of a later one. Returns whether they are known.
    fn pair_fragment(&mut self, key: &mut PacketKey, fragment: FragmentPart) -> bool {
        let name = (key.0.ip(), key.1.ip(), key.2, fragment.id);
        if fragment.is_later {
            let Some((source, destination)) = self.fragments.get(&name) else { return false };
            key.0.set_port(*source);
            key.1.set_port(*destination);
        } else if self.flows.contains_key(key) || self.services.contains_key(&(key.1, key.2)) {
            self.fragments.insert(name, (key.0.port(), key.1.port()));
        }
        true
    }

    pub(super) fn other_direction(&self, key: PacketKey) -> OtherDirection {
        let flow = self.flows.get(&key).filter(|flow| !flow.is_direct());
        let Some(flow) = flow else { return OtherDirection::Absent };
        let other = flow.back(key.2);
        match self.flows.get(&other) {
            None => OtherDirection::Absent,
            Some(flow) if !flow.is_direct() && flow.back(key.2) == key => {
                OtherDirection::Present(other)
            }
            Some(_) => OtherDirection::Replaced,
        }
    }

    /// Makes the other direction of a flow again if it was forgotten, as the time has it.
    fn keep_other_direction(&mut self, key: PacketKey, has_flow: &dyn Fn(PacketKey) -> bool) {
        let flow = &self.flows[&key];
        let other = flow.back(key.2);
        if flow.is_direct() || self.flows.contains_key(&other) || !has_flow(other) {
            return;
        }
        let state = (flow.state ^ flow_state::TO_CLIENT) & !flow_state::ASSURED;
        let (source, destination) = (key.1, key.0);
        let (bytes, place) = (0, 0);
        let mtu = self.servers[&flow.server].route_mtu().filter(|_| flow.is_to_client());
        let made = ModelFlow { source, destination, state, bytes, place, mtu, ..flow.clone() };
        self.flows.insert(other, made);
    }

    /// Learns from a packet of a flow what has become of the flow. Returns whether one has ended that was assured.
    fn follow_state(&mut self, key: PacketKey, tcp_flags: u8) -> bool {
        let flow = self.flows[&key].clone();
        let is_to_client = flow.is_to_client();
        let by_side = |client, server| if is_to_client { server } else { client };
        let mut bits = 0;
        if tcp_flags & FIN != 0 {
            bits |= by_side(flow_state::CLIENT_FIN, flow_state::SERVER_FIN);
        }
        if tcp_flags & RST != 0 {
            bits |= by_side(flow_state::CLIENT_RESET, flow_state::SERVER_RESET);
        } else {
            // A server that resets has not answered.
            bits |= by_side(0, flow_state::ANSWERED);
        }
        // The client has an answer that it acknowledges.
        if flow.is_direct() && tcp_flags & (SYN | ACK | RST) == ACK {
            bits |= flow_state::ANSWERED;
        }
        let other = self.other_direction(key);
        let now = ModelFlow { state: flow.state | bits, ..flow.clone() };
        self.flows.insert(key, now.clone());
        if let OtherDirection::Present(other) = other {
            self.flows.get_mut(&other).expect("it is there").state |= bits;
        }
        let kind = if now.is_over() && !flow.is_over() {
            event_kind::ENDED
        } else if now.state & !flow.state & flow_state::ANSWERED != 0 {
            event_kind::ANSWERED
        } else {
            return false;
        };
        // Of a flow whose key the client uses for another one nobody wants to know.
        if other != OtherDirection::Replaced {
            let (bytes_back, assured) = match other {
                OtherDirection::Present(other) => {
                    (self.flows[&other].bytes, self.flows[&other].state & flow_state::ASSURED)
                }
                _ => (0, 0),
            };
            let ModelFlow { server, bytes, .. } = now;
            let state = now.state | assured;
            let (key, bytes) = match is_to_client {
                true => (flow.back(key.2), [bytes_back, bytes]),
                false => (key, [bytes, bytes_back]),
            };
            let (service, ifindex) = (0, 0);
            self.events.push(ModelEvent { kind, key, server, service, state, ifindex, bytes });
            return kind == event_kind::ENDED && state & flow_state::ASSURED != 0;
        }
        false
    }
}

/// Sends a frame on as it is. Returns the offsets of checksums of which 0 and 0xffff are the same.
fn pass_on(frame: &mut [u8], source: IpAddr, destination: IpAddr) -> Vec<usize> {
    rewrite_ip(frame, source, destination).into_iter().collect()
}
