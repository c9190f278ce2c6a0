//! The flows that a table has decided, which this thread takes.

use super::flow::PacketFlow;
use super::kernel_flow::KernelFlow;
use super::worker::PacketWorker;
use crate::Lease;
use crate::packet::error::PacketError;
use crate::packet::layout::{RawEvent, RawFlow, RawTuple, flow_state};
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
    pub(super) fn adopt_found(&mut self, tuple: RawTuple, flow: &RawFlow) {
        let mut record = PacketFlow::found(flow);
        if !flow.is_over() {
            record.lease = self.lease_of(flow.service, flow.server);
        }
        self.flows.insert(tuple, record, &mut self.servers, &self.settings);
    }

    fn lease_of(&self, service: u32, server: u32) -> Option<Lease<std::net::SocketAddr>> {
        let service = self.services.values().find(|it| it.id == service)?;
        service.lease_of(self.servers.get(server)?)
    }

    /// Looks at all flows if events were lost, which happens when this thread was not run for long. Takes a
    /// microsecond for each flow.
    pub(super) fn recover_lost_events(
        &mut self,
        statistics: &PacketStatistics,
    ) -> Result<(), PacketError> {
        if std::mem::replace(&mut self.lost_events, statistics.events_lost)
            == statistics.events_lost
        {
            return Ok(());
        }
        self.find_unknown_flows()
    }

    /// Takes the flows in the kernel of which this process does not know, and ends those that have ended.
    pub(super) fn find_unknown_flows(&mut self) -> Result<(), PacketError> {
        let is_to_server = |flow: &RawFlow| flow.state & flow_state::TO_CLIENT == 0;
        let flows = self.maps.flows();
        let flows = flows.filter(|entry| entry.as_ref().map_or(true, |(_, it)| is_to_server(it)));
        for (tuple, flow) in flows.collect::<Result<Vec<_>, _>>()? {
            if self.flows.get(&tuple).is_none() {
                self.adopt_found(tuple, &flow);
            } else if flow.is_over() {
                let both = KernelFlow::with_back(tuple, flow, &self.maps)?;
                let [bytes_to_server, bytes_to_client] = both.bytes();
                let (at, state) = (flow.seen_at, flow.state);
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
