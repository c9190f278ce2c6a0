//! The flows that a table has decided, which this thread takes.

use super::flow::{ENTRIES_PER_FLOW, PacketFlow};
use super::kernel_flow::KernelFlow;
use super::worker::{PacketWorker, now};
use crate::Lease;
use crate::packet::error::PacketError;
use crate::packet::flow_direction::FlowDirection;
use crate::packet::layout::RawEvent;
use crate::packet::statistics::PacketStatistics;

impl PacketWorker {
    /// Takes a flow that a table has decided.
    pub(super) fn adopt(&mut self, event: &RawEvent) {
        // It was found in the kernel before its event was read.
        if self.flows.get(&event.tuple).is_some_and(|record| record.is_of(event)) {
            return;
        }
        let lease = self.lease_of(event.service, event.server);
        let record = PacketFlow::new(lease, event.server, event.service, event.at);
        self.flows.insert(event.tuple, record, &mut self.servers, &self.settings);
    }

    /// Takes a flow that is in the kernel, and of which no event has told.
    pub(super) fn adopt_found(&mut self, flow: &FlowDirection) -> Result<(), PacketError> {
        let service = self.servers.service_of(flow.server, &self.maps)?;
        let mut record = PacketFlow::found(flow, service);
        if !flow.is_over() {
            record.lease = self.lease_of(record.service, record.server);
        }
        self.flows.insert(flow.tuple, record, &mut self.servers, &self.settings);
        Ok(())
    }

    pub(super) fn lease_of(
        &self,
        service: u32,
        server: u32,
    ) -> Option<Lease<std::net::SocketAddr>> {
        let service = self.services.values().find(|it| it.id == service)?;
        service.lease_of(self.servers.get(server)?)
    }

    /// Looks at all flows if events were lost, which happens when this thread was not run for long, and in a flood.
    /// Takes a microsecond for each flow, and at most a tenth of the thread's time.
    pub(super) fn recover_lost_events(
        &mut self,
        statistics: &PacketStatistics,
    ) -> Result<(), PacketError> {
        let begun = now();
        if self.lost_events == statistics.events_lost || begun < self.next_recovery {
            return Ok(());
        }
        self.lost_events = statistics.events_lost;
        let found = self.find_unknown_flows().and_then(|()| {
            self.flows.drop_forgotten(self.clock.now(), &self.maps, &mut self.servers)
        });
        let end = now();
        self.next_recovery = end + (end - begun) * 9;
        found
    }

    /// Takes the flows in the kernel of which this process does not know, and ends those that have ended.
    pub(super) fn find_unknown_flows(&mut self) -> Result<(), PacketError> {
        // While flows come and go, the kernel may begin again from the first.
        let room = self.settings.flows as usize + self.settings.ipv6_flows as usize;
        let flows = self.maps.flows().take(2 * ENTRIES_PER_FLOW * room);
        let to_servers =
            flows.filter(|entry| entry.as_ref().map_or(true, |flow| !flow.is_to_client()));
        for flow in to_servers.collect::<Result<Vec<_>, _>>()? {
            if self.flows.get(&flow.tuple).is_none() {
                self.adopt_found(&flow)?;
            } else if flow.is_over() {
                let both = KernelFlow::with_back(flow, &self.maps)?;
                let [bytes_to_server, bytes_to_client] =
                    both.bytes().map(Option::unwrap_or_default);
                let FlowDirection { tuple, seen_at: at, state, .. } = flow;
                self.flows.ended(&RawEvent {
                    at,
                    bytes_to_server,
                    bytes_to_client,
                    tuple,
                    state,
                    ..RawEvent::default()
                });
            }
        }
        Ok(())
    }
}
