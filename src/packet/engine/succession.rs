//! One process after another, and two at the same time: a successor claims services before the process that had
//! them leaves them.
//!
//! The program asks the process that has told last that it is alive. One that claims a service for the first
//! time tells it at once, and the other one, which sees that, is superseded: it tells nothing, leaves events to
//! the successor, and leaves services as the successor has them. When that is alive no more, it resumes.

use std::time::{Duration, Instant};

use super::left_state::LeftState;
use super::worker::PacketWorker;
use crate::packet::error::PacketError;
use crate::packet::layout::{RawControl, RawService, SERVICE_UNOWNED};

/// By then a process that is superseded has noticed it, and decides no flow any more.
const SUCCESSION_TIME: Duration = Duration::from_secs(1);
/// What the program counts decisions in: 2^24 ns.
const WINDOWS_PER_SECOND: u32 = (1_000_000_000_u64 >> 24) as u32;
/// The ICMP errors of a kind that each processor answers with in a second: what the kernel itself sends of all kinds by
/// default (`net.ipv4.icmp_msgs_per_sec`).
const ANSWERS_PER_SECOND: u32 = 1000;

/// Who has told last that it is alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LastAlive {
    ThisProcess,
    /// Another one, which still is.
    Another,
    /// Nobody, or another one, which is no more.
    Nobody,
}

impl PacketWorker {
    fn last_alive(&self) -> Result<LastAlive, PacketError> {
        let control = self.maps.control()?;
        Ok(match control.tap_ifindex {
            index if index == self.tap.device.index => LastAlive::ThisProcess,
            0 => LastAlive::Nobody,
            _ if control.alive_until > self.clock.now() => LastAlive::Another,
            _ => LastAlive::Nobody,
        })
    }

    /// Returns whether another process has told that it is alive.
    fn has_other(&self) -> Result<bool, PacketError> {
        Ok(self.last_alive()? == LastAlive::Another)
    }

    /// Returns whether the program asked another process when this one looked last.
    pub(super) const fn is_superseded(&self) -> bool {
        self.succession.is_superseded
    }

    /// Returns whether events are for this process.
    pub(super) fn has_events(&self) -> bool {
        !self.services.is_empty() && !self.is_superseded()
    }

    /// Prepares the first claim: what the other process has left to decide from now on, the table decides until
    /// it is claimed, too.
    pub(super) fn succeed(&mut self, now: Instant) -> Result<(), PacketError> {
        if std::mem::replace(&mut self.succession.has_begun, true) {
            return Ok(());
        }
        // Another process may have decided flows, and changed servers, since this one started.
        let left = LeftState::read(&self.maps, &self.settings)?;
        (self.unowned, self.servers, self.flows) = (left.unowned, left.servers, left.flows);
        for follower in &mut self.followers {
            follower.begin_all();
        }
        self.succession.search_at = Some(now + SUCCESSION_TIME);
        for (key, service) in self.maps.services()? {
            if self.unowned.contains_key(&key) {
                let flags = service.flags | SERVICE_UNOWNED;
                self.maps.set_service(&key, &RawService { flags, ..service })?;
            }
        }
        Ok(())
    }

    /// Has the program ask this process, if it does not ask a successor. A process without services is silent: it
    /// may have handed them over to another, which the program asks then.
    pub(super) fn tell_alive(&mut self) {
        if self.services.is_empty() {
            return;
        }
        let result = self.follow_succession();
        if self.check(result) == Some(false) {
            self.become_alive();
        }
    }

    /// Returns whether another process has superseded this one.
    fn follow_succession(&mut self) -> Result<bool, PacketError> {
        let last_alive = self.last_alive()?;
        let is_superseded = last_alive == LastAlive::Another;
        self.succession.is_superseded = is_superseded;
        // Another process has been there, perhaps for less time than this one takes to look again.
        if last_alive == LastAlive::Nobody {
            let flows = self.flows.iter().map(|(_, record)| record.server);
            self.servers.read_again(&self.maps, flows)?;
            for service in self.services.values_mut() {
                service.publish_again();
                service.reconcile(&mut self.maps, &mut self.servers)?;
            }
            self.find_unknown_flows()?;
        }
        Ok(is_superseded)
    }

    /// Has the program ask this process.
    pub(super) fn become_alive(&mut self) {
        let alive_for = u64::try_from(self.settings.alive_for.as_nanos()).unwrap_or(u64::MAX);
        let control = RawControl {
            alive_until: self.clock.now().saturating_add(alive_for),
            tap_ifindex: self.tap.device.index,
            upcalls_per_window: self.settings.decisions_per_second.div_ceil(WINDOWS_PER_SECOND),
            answers_per_window: ANSWERS_PER_SECOND.div_ceil(WINDOWS_PER_SECOND),
            first_check_mark: self.settings.check_marks.get(),
        };
        let result = self.maps.set_control(&control);
        self.check(result);
    }

    /// Returns whether a service that this process leaves is left to the table: no successor has it.
    pub(super) fn leaves_to_table(&mut self) -> bool {
        let result = self.has_other();
        self.check(result) == Some(false)
    }

    /// Looks for what another process has decided before it was superseded. Returns whether services that nobody
    /// has claimed may be removed: they may be another process's.
    pub(super) fn audit_succession(&mut self, now: Instant) -> Result<bool, PacketError> {
        if self.succession.search_at.is_some_and(|at| now >= at) {
            self.succession.search_at = None;
            self.find_unknown_flows()?;
        }
        Ok(!self.has_other()?)
    }
}
