//! The engines of other machines that are told of this one's flows.

use std::collections::BTreeSet;
use std::time::Duration;

use super::flow_follower::FlowFollower;
use super::flow_walk::FlowWalk;
use super::worker::PacketWorker;
use crate::engine::EngineProtocol;
use crate::packet::error::PacketError;
use crate::packet::flow_direction::FlowDirection;
use crate::packet::flow_sync::{FlowBatch, FlowFeed, SyncedFlow, flow_feed};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawTuple, flow_state};

/// The age at which others are told of a flow.
const AGE: Duration = Duration::from_millis(500);
/// A UDP flow that nobody answers is told of if it has packets for longer than this.
const LASTING: Duration = Duration::from_millis(250);
/// The most flows that are looked at before other work goes on.
const MAX_FLOWS: usize = 8 * FlowBatch::MAX_FLOWS;

impl PacketWorker {
    /// Adds an engine that is told of all flows, and then of what changes.
    pub(super) fn add_flow_feed(&mut self) -> FlowFeed {
        let (feed, reader) = flow_feed();
        self.followers.push(FlowFollower::new(feed));
        self.flows.changes.set_read(true);
        reader
    }

    /// Tells other engines of all flows of some services that they do not know, because another machine has the address
    /// now.
    pub(super) fn tell_last_flows(&mut self, services: &BTreeSet<u32>) -> Result<(), PacketError> {
        // Those that a table has decided a moment ago, too.
        self.read_all_events();
        let mut last = self.ended_flows();
        while self.followers.iter().any(|follower| follower.feed.has_room()) {
            let next = self.flows.changes.next_young(u64::MAX);
            if let Some(tuple) = next {
                let record = self.flows.get(&tuple).filter(|record| record.is_to_tell());
                if record.is_some_and(|record| services.contains(&record.service))
                    && let Some(flow) = self.flow_to_tell(&tuple)?
                {
                    self.flows.set_told(&tuple);
                    last.push(flow);
                }
            }
            if next.is_none() || last.len() >= FlowBatch::MAX_FLOWS {
                self.followers.iter_mut().for_each(|follower| follower.send_changes(&last));
                last.clear();
            }
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Returns the flows that have ended since the last call, and of which others know.
    fn ended_flows(&mut self) -> Vec<SyncedFlow> {
        let ended = self.flows.changes.read_ended().into_iter();
        ended.filter_map(|(tuple, server)| Some(self.synced(&tuple, server)?.closed())).collect()
    }

    /// Tells other engines what has changed since the last call. Returns whether there is more to tell at once.
    pub(super) fn tell_followers(&mut self) -> Result<bool, PacketError> {
        self.followers.retain(|follower| !follower.feed.is_closed());
        self.flows.changes.set_read(!self.followers.is_empty());
        if self.followers.is_empty() {
            return Ok(false);
        }
        let (changes, has_more) = self.changed_flows()?;
        let has_lost = self.flows.changes.read_lost();
        let mut followers = std::mem::take(&mut self.followers);
        let mut has_room = false;
        for follower in &mut followers {
            if has_lost {
                follower.begin_all();
            }
            follower.send_changes(&changes);
            has_room |= self.tell_all(follower)?;
            if changes.is_empty() && follower.walk.is_none() && follower.feed.has_room() {
                follower.feed.send(FlowBatch::default());
            }
        }
        self.followers = followers;
        Ok(has_more || has_room)
    }

    /// Returns what has changed, and whether there is more.
    fn changed_flows(&mut self) -> Result<(Vec<SyncedFlow>, bool), PacketError> {
        let mut changes = self.ended_flows();
        let old_enough = self.clock.now().saturating_sub(nanos(AGE));
        let mut untold = Vec::new();
        while untold.len() < MAX_FLOWS
            && let Some(tuple) = self.flows.changes.next_young(old_enough)
        {
            untold.push(tuple);
        }
        let has_more = untold.len() == MAX_FLOWS;
        self.search_untold(old_enough, &mut untold);
        for tuple in untold {
            let record = self.flows.get(&tuple).filter(|record| record.is_to_tell());
            if record.is_some()
                && let Some(flow) = self.flow_to_tell(&tuple)?
            {
                self.flows.set_told(&tuple);
                changes.push(flow);
            }
        }
        Ok((changes, has_more))
    }

    /// Looks for some flows, each time for others, whose clients may be there only since they were young.
    fn search_untold(&mut self, old_enough: u64, untold: &mut Vec<RawTuple>) {
        let mut walk = self.search_for_untold;
        let mut steps = FlowBatch::MAX_FLOWS;
        while let Some((tuple, record)) = self.flows.next_of(&mut walk, &mut steps) {
            if record.is_to_tell() && record.begun_at <= old_enough {
                untold.push(tuple);
            }
        }
        self.search_for_untold = if steps == 0 { walk } else { FlowWalk::default() };
    }

    /// Tells all flows, as far as there is room. Returns whether there is room for more of them.
    fn tell_all(&mut self, follower: &mut FlowFollower) -> Result<bool, PacketError> {
        let young_after = self.clock.now().saturating_sub(nanos(AGE));
        let mut steps = MAX_FLOWS;
        while let Some(mut walk) = follower.walk {
            // All flows would find no room, either, where changes had none.
            let has_room = match follower.has_begun {
                true => follower.feed.has_room(),
                false => follower.feed.is_read(),
            };
            if !has_room || steps == 0 {
                return Ok(has_room);
            }
            let (mut tuples, mut young) = (Vec::new(), Vec::new());
            while tuples.len() < FlowBatch::MAX_FLOWS {
                let Some((tuple, record)) = self.flows.next_of(&mut walk, &mut steps) else {
                    break;
                };
                if record.begun_at > young_after {
                    young.push((tuple, record.begun_at));
                } else if !record.is_over && record.round.is_none() {
                    tuples.push(tuple);
                }
            }
            for (tuple, begun_at) in young {
                self.flows.changes.add_young(tuple, begun_at);
            }
            let mut flows = Vec::with_capacity(tuples.len());
            for tuple in &tuples {
                if let Some(flow) = self.flow_to_tell(tuple)? {
                    self.flows.set_told(tuple);
                    flows.push(flow);
                }
            }
            let ends_all = steps > 0 && tuples.len() < FlowBatch::MAX_FLOWS;
            let begins_all = !std::mem::replace(&mut follower.has_begun, true);
            follower.feed.send(FlowBatch { begins_all, ends_all, flows });
            follower.walk = (!ends_all).then_some(walk);
        }
        Ok(false)
    }

    /// Returns what another engine is told of a flow; `None` if it is not, because nobody is known to be there.
    fn flow_to_tell(&self, tuple: &RawTuple) -> Result<Option<SyncedFlow>, PacketError> {
        let lasts = |flow: &FlowDirection| {
            let begun_at = self.flows.get(tuple).map_or(u64::MAX, |record| record.begun_at);
            tuple.protocol == PROTOCOL_UDP && flow.seen_at.saturating_sub(begun_at) > nanos(LASTING)
        };
        let flow = self.maps.flow(tuple)?;
        let flow = flow.filter(|flow| !flow.is_to_client() && !flow.is_over());
        let is_told = |flow: &FlowDirection| flow.state & flow_state::ASSURED != 0 || lasts(flow);
        Ok(flow.filter(is_told).and_then(|flow| self.synced(tuple, flow.server)))
    }

    fn synced(&self, tuple: &RawTuple, server: u32) -> Option<SyncedFlow> {
        let server = self.servers.get(server)?.raw.address();
        let protocol = match tuple.protocol {
            PROTOCOL_TCP => EngineProtocol::Tcp,
            _ => EngineProtocol::Udp,
        };
        Some(SyncedFlow::open(protocol, tuple.destination(), server, tuple.source()))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
