//! What the program is meant to do, in plain Rust: flows by their keys, and frames changed as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::frames::{ACK, FIN, RST, SYN};
use super::parsed::{FragmentPart, LeftToStack, PacketKey, ParsedFrame};
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

/// The device on which programs are tested: the loopback device.
pub(super) const TEST_DEVICE: u32 = 1;

#[derive(Clone, Debug)]
pub(super) struct ModelService {
    pub(super) id: u32,
    pub(super) sheds: bool,
    /// Whether its table decides before the director.
    pub(super) is_keyed: bool,
    /// Whether a process has it.
    pub(super) is_owned: bool,
    /// The servers of its table.
    pub(super) slots: Vec<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct ModelServer {
    pub(super) address: SocketAddr,
    pub(super) service: u32,
    pub(super) is_available: bool,
    pub(super) has_route: bool,
}

/// One direction of a flow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ModelFlow {
    /// What its packets have after they are rewritten.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) server: u32,
    pub(super) service: u32,
    /// The bits of [`flow_state`].
    pub(super) state: u32,
    /// Octets of its packets.
    pub(super) bytes: u64,
}

/// The tap device at which the director gets what it decides.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum TapDevice {
    #[default]
    None,
    /// One that is gone, with its process.
    Gone,
    Present,
    /// The device that the tests' frames come from: they are what the director gives back.
    Test,
}

/// The director, as the program knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ModelDirector {
    pub(super) is_alive: bool,
    pub(super) tap: TapDevice,
    /// Whether it may be asked for any new flow, or for none.
    pub(super) has_budget: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ModelEvent {
    pub(super) kind: u32,
    /// The direction to the server.
    pub(super) key: PacketKey,
    pub(super) server: u32,
    pub(super) service: u32,
    pub(super) state: u32,
    pub(super) ifindex: u32,
    /// Octets to the server and to the client.
    pub(super) bytes: [u64; 2],
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
    /// The ports of packets that come in fragments, by their addresses, protocol and number.
    fragments: HashMap<(IpAddr, IpAddr, u8, u32), (u16, u16)>,
}

/// The other direction of a flow.
#[derive(Debug, Eq, PartialEq)]
enum OtherDirection {
    Present(PacketKey),
    Absent,
    /// What has its key is part of another flow.
    Replaced,
}

impl ModelFlow {
    fn is_to_client(&self) -> bool {
        self.state & flow_state::TO_CLIENT != 0
    }

    fn is_over(&self) -> bool {
        let has = |bits| self.state & bits == bits;
        has(flow_state::FINS) || has(flow_state::CLIENT_RESET) || has(flow_state::SERVER_RESET)
    }

    fn has_begun_to_end(&self) -> bool {
        self.state & (flow_state::FINS | flow_state::RESETS) != 0
    }

    /// Returns the key of the packets that come back.
    fn back(&self, protocol: u8) -> PacketKey {
        (self.destination, self.source, protocol)
    }
}

impl ProgramModel {
    /// Does what the program does with a frame. `decided` is the server that the program has chosen, if it has
    /// made a flow by a table: the model knows which servers it may choose, and not the hash.
    pub(super) fn run(&mut self, frame: &[u8], decided: Option<u32>) -> ModelOutput {
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
                    output.verdict = self.run_segment(packet, transport, decided, &mut output);
                } else if self.addresses.contains(&key.1.ip()) {
                    self.statistics.fragments += 1;
                }
            }
            ParsedFrame::IcmpError { source, destination, transport, hop_limit, quoted } => {
                let flow = self.flows.get(&(quoted.1, quoted.0, quoted.2));
                // An error is sent to whom has sent what it quotes.
                if let Some(flow) = flow
                    && destination == quoted.0.ip()
                    && hop_limit > 1
                {
                    // The end's own error comes from the end that the other side knows.
                    let is_of_end = source == quoted.1.ip();
                    let error = TranslatedError {
                        source: if is_of_end { flow.source.ip() } else { source },
                        quoted_source: flow.destination,
                        quoted_destination: flow.source,
                    };
                    output.checksums = rewrite_error(&mut output.frame, transport, &error);
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
        decided: Option<u32>,
        output: &mut ModelOutput,
    ) -> FrameVerdict {
        let (key, hop_limit, tcp_flags) = packet;
        // A client may begin anew with the port of a connection that has ended.
        let begins = tcp_flags & (SYN | ACK) == SYN;
        let is_reused =
            |flow: &ModelFlow| begins && flow.has_begun_to_end() && !flow.is_to_client();
        if self.flows.get(&key).is_none_or(is_reused)
            && let Some(verdict) = self.decide(packet, decided, output)
        {
            return verdict;
        }
        if hop_limit <= 1 {
            self.statistics.hop_limit += 1;
            return FrameVerdict::Drop;
        }
        let len = output.frame.len() as u64 - 14;
        self.flows.get_mut(&key).expect("it is there").bytes += len;
        self.follow_state(key, tcp_flags);
        let flow = &self.flows[&key];
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
            Some(transport) => rewrite_segment(&mut output.frame, transport, &ends),
            // Ports and checksum are in the first fragment.
            None => rewrite_ip(&mut output.frame, ends.0.ip(), ends.1.ip()).into_iter().collect(),
        };
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

    /// Decides a packet without a flow. Returns `None` if it has one now.
    fn decide(
        &mut self,
        (key, hop_limit, tcp_flags): (PacketKey, u8, u8),
        decided: Option<u32>,
        output: &mut ModelOutput,
    ) -> Option<FrameVerdict> {
        let Some(service) = self.services.get(&(key.1, key.2)).cloned() else {
            return Some(FrameVerdict::Next);
        };
        if key.2 == PROTOCOL_TCP && tcp_flags & (SYN | ACK | RST) != SYN {
            self.statistics.without_flow += 1;
            return Some(FrameVerdict::Next);
        }
        if hop_limit <= 1 {
            self.statistics.hop_limit += 1;
            return Some(FrameVerdict::Drop);
        }
        let director = self.director;
        if director.tap == TapDevice::Test {
            self.statistics.refused_without_server += 1;
            return Some(FrameVerdict::Next);
        }
        let is_there = director.is_alive && director.tap == TapDevice::Present;
        let can_ask = service.is_owned && is_there && director.has_budget;
        if can_ask && !service.is_keyed {
            return Some(self.ask(output));
        }
        if service.sheds {
            self.statistics.refused_at_limit += 1;
            return Some(FrameVerdict::Next);
        }
        let usable =
            service.slots.iter().filter(|server| self.is_usable(key, service.id, **server));
        let usable: Vec<_> = usable.copied().collect();
        let Some(server) = decided else {
            // Some slots are tried, of many.
            assert!(usable.len() < service.slots.len().max(1), "a server is there for {key:?}");
            if can_ask && service.is_keyed {
                return Some(self.ask(output));
            }
            self.statistics.refused_without_server += 1;
            return Some(FrameVerdict::Next);
        };
        assert!(usable.contains(&server), "server {server} for {key:?}, of {usable:?}");
        self.add_flow(key, server, service.id);
        let of_table = &mut self.statistics.table_decisions;
        let of_rule = &mut self.statistics.keyed_decisions;
        *(if service.is_keyed { of_rule } else { of_table }) += 1;
        None
    }

    /// Sends a frame to the director.
    fn ask(&mut self, output: &mut ModelOutput) -> FrameVerdict {
        self.statistics.upcalls += 1;
        output.frame[6..10].copy_from_slice(&TEST_DEVICE.to_ne_bytes());
        output.frame[10..12].fill(0);
        FrameVerdict::Redirect
    }

    fn is_usable(&self, key: PacketKey, service: u32, server: u32) -> bool {
        let Some(server) = self.servers.get(&server) else { return false };
        server.is_available
            && server.has_route
            && server.service == service
            && self.is_way_back_free(key, server.address)
    }

    /// Returns whether packets from a server to a client are of no other flow that lives.
    fn is_way_back_free(&self, key: PacketKey, server: SocketAddr) -> bool {
        let back = (server, key.0, key.2);
        match self.other_direction(back) {
            OtherDirection::Present(other) => other == key || self.flows[&other].is_over(),
            OtherDirection::Absent | OtherDirection::Replaced => true,
        }
    }

    fn other_direction(&self, key: PacketKey) -> OtherDirection {
        let Some(flow) = self.flows.get(&key) else { return OtherDirection::Absent };
        let other = flow.back(key.2);
        match self.flows.get(&other) {
            None => OtherDirection::Absent,
            Some(flow) if flow.back(key.2) == key => OtherDirection::Present(other),
            Some(_) => OtherDirection::Replaced,
        }
    }

    fn add_flow(&mut self, key: PacketKey, server: u32, service: u32) {
        let (source, destination) = (key.0, self.servers[&server].address);
        let there = ModelFlow { source, destination, server, service, state: 0, bytes: 0 };
        let back_key = there.back(key.2);
        let state = flow_state::TO_CLIENT;
        let back =
            ModelFlow { source: key.1, destination: key.0, server, service, state, bytes: 0 };
        self.flows.insert(back_key, back);
        self.flows.insert(key, there);
        self.counters.entry(server).or_default().connections += 1;
        let (kind, ifindex) = (event_kind::DECIDED, TEST_DEVICE);
        let bytes = [0; 2];
        self.events.push(ModelEvent { kind, key, server, service, state: 0, ifindex, bytes });
    }

    /// Learns from a packet of a flow what has become of the flow.
    fn follow_state(&mut self, key: PacketKey, tcp_flags: u8) {
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
            return;
        };
        // Of a flow whose key the client uses for another one nobody wants to know.
        if other != OtherDirection::Replaced {
            let bytes_back = match other {
                OtherDirection::Present(other) => self.flows[&other].bytes,
                _ => 0,
            };
            let ModelFlow { server, state, bytes, .. } = now;
            let (key, bytes) = match is_to_client {
                true => (flow.back(key.2), [bytes_back, bytes]),
                false => (key, [bytes, bytes_back]),
            };
            let (service, ifindex) = (0, 0);
            self.events.push(ModelEvent { kind, key, server, service, state, ifindex, bytes });
        }
    }
}
