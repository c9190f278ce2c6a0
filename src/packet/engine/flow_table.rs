//! The flows, each with its lease, until they end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::flow::{ENTRIES_PER_FLOW, EndedFlow, FlowEnding, PacketFlow, timeout};
use super::flow_changes::FlowChanges;
use super::flow_walk::FlowWalk;
use super::kernel_flow::KernelFlow;
use super::server_slots::ServerSlots;
use super::virtual_service::PacketVirtualService;
use crate::backend::Outcome;
use crate::engine::EngineFlowEnd;
use crate::packet::error::PacketError;
use crate::packet::flow_direction::FlowDirection;
use crate::packet::layout::{PROTOCOL_TCP, RawEvent, RawTuple, flow_state};
use crate::packet::maps::PacketMaps;
use crate::packet::settings::PacketSettings;

/// The flows, and when each is looked at next.
#[derive(Debug, Default)]
pub(super) struct PacketFlowTable {
    pub(super) records: HashMap<RawTuple, PacketFlow>,
    /// The entries of them that the kernel has, of IPv4 and of IPv6, if it has forgotten none.
    entries: [usize; 2],
    /// By the second in which they are due.
    due: BTreeMap<u64, Vec<RawTuple>>,
    /// What the engine of another machine is to be told.
    pub(super) changes: FlowChanges,
    /// When another machine told last of its flows, in nanoseconds of the monotonic clock.
    pub(super) confirmed_at: u64,
    /// The flows of each service that have not ended.
    open_flows: HashMap<u32, u64>,
    /// The services that have records of their flows written.
    recorded: HashSet<u32>,
    /// The flows of these services that have ended since they were read last.
    ended: Vec<EndedFlow>,
    /// Where the search for forgotten flows goes on.
    search: FlowWalk,
    /// The flows that the kernel has forgotten since this was read last.
    forgotten: u64,
}

const NANOS: u64 = 1_000_000_000;
/// The most flows that are looked at before other work goes on.
const MAX_CHECKS: usize = 4096;
/// The part of the room in the kernel for which there may be records of flows that the kernel has forgotten.
const MAX_FORGOTTEN_PART: usize = 8;

impl PacketFlowTable {
    pub(super) fn get(&self, tuple: &RawTuple) -> Option<&PacketFlow> {
        self.records.get(tuple)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RawTuple, &PacketFlow)> {
        self.records.iter()
    }

    /// Returns the next flow of a walk over all, which may go on after others have come and gone.
    /// `None` at the end, or when `steps` has become 0.
    pub(super) fn next_of(
        &self,
        walk: &mut FlowWalk,
        steps: &mut usize,
    ) -> Option<(RawTuple, &PacketFlow)> {
        walk.next(&self.due, &self.records, steps)
    }

    /// Returns the number of a service's flows that have not ended.
    pub(super) fn count_open(&self, service: u32) -> u64 {
        self.open_flows.get(&service).copied().unwrap_or_default()
    }

    /// Says whether the ends of a service's flows are kept until they are [read](Self::read_ended).
    pub(super) fn record_ends(&mut self, service: u32, is_recorded: bool) {
        if is_recorded {
            self.recorded.insert(service);
        } else {
            self.recorded.remove(&service);
        }
    }

    /// Returns the flows that have ended since the last call.
    pub(super) fn read_ended(&mut self) -> Vec<EndedFlow> {
        std::mem::take(&mut self.ended)
    }

    /// Counts a flow as ended, once.
    fn end(&mut self, tuple: &RawTuple, ending: FlowEnding) {
        let Some(record) = self.records.get_mut(tuple) else { return };
        if std::mem::replace(&mut record.is_over, true) {
            return;
        }
        close_one(&mut self.open_flows, record.service);
        if record.is_told {
            self.changes.add_ended(*tuple, record.server);
        }
        // Another machine records the ends of its flows.
        if self.recorded.contains(&record.service) && record.round.is_none() {
            self.ended.push(EndedFlow {
                tuple: *tuple,
                server: record.server,
                service: record.service,
                total_time: Duration::from_nanos(ending.at.saturating_sub(record.begun_at)),
                ending,
            });
        }
    }

    /// Adds a flow, in place of one that has the same tuple.
    pub(super) fn insert(
        &mut self,
        tuple: RawTuple,
        mut record: PacketFlow,
        servers: &mut ServerSlots,
        settings: &PacketSettings,
    ) {
        let (end, outcome, at) = (EngineFlowEnd::Replaced, Outcome::Ok, record.begun_at);
        self.remove(&tuple, servers, FlowEnding { end, outcome, at, bytes: [None; 2] });
        servers.count_flow(record.server);
        record.is_direct = servers.get(record.server).is_some_and(|slot| slot.raw.is_direct());
        *self.entries_of(&tuple) += record.entries();
        if !record.is_over {
            *self.open_flows.entry(record.service).or_default() += 1;
        }
        let timeout = match tuple.protocol {
            PROTOCOL_TCP => settings.closing_timeout,
            _ => settings.udp_timeout,
        };
        let begun_at = record.begun_at;
        self.changes.add_young(tuple, begun_at);
        self.records.insert(tuple, record);
        self.schedule(tuple, begun_at, timeout);
    }

    fn schedule(&mut self, tuple: RawTuple, since: u64, timeout: Duration) {
        let due = since / NANOS + timeout.as_secs().max(1);
        if let Some(record) = self.records.get_mut(&tuple) {
            record.due = due;
            self.due.entry(due).or_default().push(tuple);
        }
    }

    /// Forgets a flow, which ends so if it has not ended before.
    pub(super) fn remove(
        &mut self,
        tuple: &RawTuple,
        servers: &mut ServerSlots,
        ending: FlowEnding,
    ) {
        self.end(tuple, ending);
        let Some(record) = self.records.remove(tuple) else { return };
        *self.entries_of(tuple) -= record.entries();
        servers.uncount_flow(record.server);
        if let Some(lease) = record.lease {
            lease.complete(ending.outcome);
        }
    }

    /// Learns from the first answer of a server.
    pub(super) fn answered(&mut self, event: &RawEvent, now: Instant) {
        let Some(record) = self.records.get_mut(&event.tuple) else { return };
        record.is_answered = true;
        self.changes.add_young(event.tuple, event.at);
        let Some(lease) = &record.lease else { return };
        lease.report_connected();
        // By direct routing it is seen when the client has the answer: the client's own way is part of that time.
        if !record.is_direct {
            let latency = Duration::from_nanos(event.at.saturating_sub(record.begun_at));
            lease.observe_latency(latency, now);
        }
    }

    /// Ends the lease of a flow that has ended. The record stays as long as late packets may come.
    pub(super) fn ended(&mut self, event: &RawEvent) {
        let Some(record) = self.records.get_mut(&event.tuple) else { return };
        record.is_answered |= event.state & flow_state::ANSWERED != 0;
        let ending = FlowEnding::of_event(event, record.is_answered);
        if let Some(lease) = record.lease.take() {
            lease.complete(ending.outcome);
        }
        self.end(&event.tuple, ending);
    }

    /// Gives the flows of a service leases of its set, but for those that have one.
    pub(super) fn renew_leases(
        &mut self,
        service: &PacketVirtualService,
        servers: &ServerSlots,
        maps: &PacketMaps,
    ) {
        let records = self.records.iter_mut().filter(|(_, record)| record.service == service.id);
        for (tuple, record) in records {
            if record.lease.as_ref().is_some_and(|lease| service.has_backend(lease.backend())) {
                continue;
            }
            let is_open = matches!(maps.flow(tuple), Ok(Some(flow)) if !flow.is_over());
            let slot = servers.get(record.server).filter(|_| is_open);
            record.lease = slot.and_then(|slot| service.lease_of(slot));
        }
    }

    /// Ends the flows for which a condition holds, in the kernel too, and returns their number.
    pub(super) fn cut(
        &mut self,
        is_cut: impl Fn(&PacketFlow) -> bool,
        now: u64,
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
    ) -> Result<u64, PacketError> {
        let chosen = self.records.iter().filter(|(_, record)| is_cut(record));
        let chosen = chosen.map(|(tuple, _)| *tuple).collect::<Vec<_>>();
        for tuple in &chosen {
            let flow = KernelFlow::read(tuple, maps)?;
            if let Some(flow) = &flow {
                flow.remove(maps)?;
            }
            let bytes = flow.map_or([None; 2], |flow| flow.bytes());
            let (end, outcome) = (EngineFlowEnd::Cut, Outcome::Cancelled);
            self.remove(tuple, servers, FlowEnding { end, outcome, at: now, bytes });
        }
        Ok(chosen.len() as u64)
    }

    /// Looks at the flows that are due: those of which nothing was seen for too long are forgotten, here and in
    /// the kernel. Returns whether more are due.
    pub(super) fn check_due(
        &mut self,
        now: u64,
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
        settings: &PacketSettings,
    ) -> Result<bool, PacketError> {
        let mut checks = 0;
        while let Some(mut bucket) = self.due.first_entry() {
            let second = *bucket.key();
            if second > now / NANOS {
                return Ok(false);
            }
            let Some(tuple) = bucket.get_mut().pop() else {
                bucket.remove();
                continue;
            };
            checks += 1;
            if checks > MAX_CHECKS {
                bucket.get_mut().push(tuple);
                return Ok(true);
            }
            // A newer flow with this tuple has a time of its own.
            if self.records.get(&tuple).is_some_and(|record| record.due == second) {
                self.check(tuple, now, maps, servers, settings)?;
            }
        }
        Ok(false)
    }

    /// Ends and counts the record of a flow that the kernel has forgotten, because the table was full.
    fn forget(&mut self, tuple: &RawTuple, now: u64, servers: &mut ServerSlots) {
        let is_open = self.records.get(tuple).is_some_and(|record| !record.is_over);
        self.forgotten += u64::from(is_open);
        self.remove_forgotten(tuple, now, servers);
    }

    fn remove_forgotten(&mut self, tuple: &RawTuple, now: u64, servers: &mut ServerSlots) {
        let Some(record) = self.records.get(tuple) else { return };
        let outcome = if record.is_answered { Outcome::Ok } else { Outcome::Cancelled };
        let end = EngineFlowEnd::Forgotten;
        self.remove(tuple, servers, FlowEnding { end, outcome, at: now, bytes: [None; 2] });
    }

    /// Ends the record of a flow that the program has forgotten for others, because nobody was assured of it.
    pub(super) fn forgotten(&mut self, event: &RawEvent, servers: &mut ServerSlots) {
        // The client may have begun another one since.
        let record = self.records.get(&event.tuple);
        if record.is_none_or(|it| it.server != event.server || it.begun_at > event.at) {
            return;
        }
        self.remove(&event.tuple, servers, FlowEnding::of_forgotten(event));
    }

    /// Ends the records of flows that the kernel does not have, of which events may have been lost.
    pub(super) fn drop_forgotten(
        &mut self,
        now: u64,
        maps: &PacketMaps,
        servers: &mut ServerSlots,
    ) -> Result<(), PacketError> {
        let tuples = self.records.keys().copied().collect::<Vec<_>>();
        for tuple in tuples {
            if maps.flow(&tuple)?.is_none() {
                // The program has counted most of them.
                self.remove_forgotten(&tuple, now, servers);
            }
        }
        Ok(())
    }

    /// Returns the number of flows that the kernel has forgotten since the last call.
    pub(super) const fn read_forgotten(&mut self) -> u64 {
        std::mem::replace(&mut self.forgotten, 0)
    }

    /// Returns the number of entries of the family of a flow.
    fn entries_of(&mut self, tuple: &RawTuple) -> &mut usize {
        &mut self.entries[usize::from(tuple.source().is_ipv6())]
    }

    /// Returns whether there are records of more entries of a family than the kernel has room for.
    fn is_over_room(&self, settings: &PacketSettings) -> bool {
        let rooms = [settings.flows, settings.ipv6_flows];
        self.entries.iter().zip(rooms).any(|(entries, room)| {
            let room = ENTRIES_PER_FLOW * room as usize;
            *entries > room + room / MAX_FORGOTTEN_PART
        })
    }

    /// Looks for flows that the kernel has forgotten while there are more records than it has room for. Without
    /// it their leases, and the memory of their records, would stay until they are due. Returns whether more
    /// are to be looked at.
    pub(super) fn search_forgotten(
        &mut self,
        now: u64,
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
        settings: &PacketSettings,
    ) -> Result<bool, PacketError> {
        let mut steps = MAX_CHECKS;
        while steps > 0 {
            if !self.is_over_room(settings) {
                return Ok(false);
            }
            let Some((tuple, _)) = self.search.next(&self.due, &self.records, &mut steps) else {
                if steps == 0 {
                    break;
                }
                // Again from the beginning when flows are looked at next.
                self.search = FlowWalk::default();
                return Ok(false);
            };
            match KernelFlow::read(&tuple, maps)? {
                Some(flow) if flow.is_whole() => continue,
                Some(half) => half.remove(maps)?,
                None => {}
            }
            self.forget(&tuple, now, servers);
        }
        Ok(true)
    }

    fn check(
        &mut self,
        tuple: RawTuple,
        now: u64,
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
        settings: &PacketSettings,
    ) -> Result<(), PacketError> {
        let Some(flow) = KernelFlow::read(&tuple, maps)? else {
            self.forget(&tuple, now, servers);
            return Ok(());
        };
        let seen_at = flow.seen_at().max(self.confirmed_at(&tuple));
        let timeout = timeout(&flow.there, settings);
        let quiet = Duration::from_nanos(now.saturating_sub(seen_at));
        if quiet < timeout {
            let is_elsewhere = self.records.get(&tuple).is_some_and(|it| it.round.is_some());
            if is_elsewhere {
                // A successor of this process knows when it was there. Nothing else writes it now.
                maps.insert_flow(FlowDirection { seen_at, ..flow.there })?;
            }
            self.schedule(tuple, seen_at, if is_elsewhere { timeout / 2 } else { timeout });
            return Ok(());
        }
        flow.remove(maps)?;
        let ending = FlowEnding::by_timeout(&flow.there, now, flow.bytes());
        self.remove(&tuple, servers, ending);
        Ok(())
    }
}

/// Counts a flow of a service as ended.
fn close_one(open_flows: &mut HashMap<u32, u64>, service: u32) {
    if let Some(count) = open_flows.get_mut(&service) {
        *count -= 1;
        if *count == 0 {
            open_flows.remove(&service);
        }
    }
}
