//! The records of flows that have ended, for those who want them.

use super::flow::EndedFlow;
use super::worker::PacketWorker;
use crate::engine::{EngineFlowRecord, EngineProtocol};
use crate::packet::layout::PROTOCOL_TCP;

impl PacketWorker {
    /// Calls the owners of services with the records of flows that have ended.
    pub(super) fn report_ends(&mut self) {
        for ended in self.flows.read_ended() {
            self.report_end(&ended);
        }
    }

    fn report_end(&self, ended: &EndedFlow) {
        let Some(service) = self.services.values().find(|it| it.id == ended.service) else {
            return;
        };
        let Some(callback) = &service.request.on_flow_end else { return };
        let Some(slot) = self.servers.get(ended.server) else { return };
        let [to_server, to_client] = ended.ending.bytes;
        callback.call(&EngineFlowRecord {
            service: service.request.service.clone(),
            protocol: match ended.tuple.protocol {
                PROTOCOL_TCP => EngineProtocol::Tcp,
                _ => EngineProtocol::Udp,
            },
            client: ended.tuple.source(),
            local: ended.tuple.destination(),
            backend: slot.backend.clone(),
            destination: slot.raw.address(),
            total_time: ended.total_time,
            bytes_to_server: to_server,
            bytes_to_client: to_client,
            end: ended.ending.end,
        });
    }
}
