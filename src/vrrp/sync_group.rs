//! A group of virtual routers that are master together or not at all.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Election, ElectionConfig, ElectionOutput, ReceivedAdvert, VrrpConfigError, VrrpState};

/// Several virtual routers of one director that must be master together: the inside and the outside
/// address of a gateway, IPv4 and IPv6. It corresponds to keepalived's `vrrp_sync_group`.
///
/// The group becomes master when every member would; when one member ceases to be master, all become
/// backup; while one member has a fault, none is master. Members are identified by their index.
#[derive(Debug)]
pub struct VrrpSyncGroup {
    members: Vec<Election>,
    /// For each member, the name of its tracked item that is down.
    faults: Vec<Option<String>>,
    outputs: VecDeque<(usize, ElectionOutput)>,
}

impl VrrpSyncGroup {
    /// Creates a group that has not started.
    ///
    /// # Errors
    /// [`VrrpConfigError`] for the first configuration that is not valid.
    pub fn new(configs: impl IntoIterator<Item = ElectionConfig>) -> Result<Self, VrrpConfigError> {
        let members = configs.into_iter().map(Election::new);
        let mut members = members.collect::<Result<Vec<_>, VrrpConfigError>>()?;
        if members.len() > 1 {
            members.iter_mut().for_each(Election::set_grouped);
        }
        Ok(Self { faults: vec![None; members.len()], members, outputs: VecDeque::new() })
    }

    /// Returns the members, in the order of their configurations.
    #[must_use]
    pub fn members(&self) -> &[Election] {
        &self.members
    }

    /// Holds preemption back, or allows it again, as [`Election::hold_preemption`], for all members.
    pub fn hold_preemption(&mut self, is_held: bool) {
        self.members.iter_mut().for_each(|member| member.hold_preemption(is_held));
    }

    /// Changes the settings of the member of this index, as [`Election::reconfigure`]; does nothing if
    /// there is no such member.
    ///
    /// # Errors
    /// [`VrrpConfigError`] names the setting that is not valid; nothing changes then.
    pub fn reconfigure(
        &mut self,
        now: Instant,
        index: usize,
        config: ElectionConfig,
    ) -> Result<(), VrrpConfigError> {
        self.update_one(now, index, |member| member.reconfigure(now, config)).unwrap_or(Ok(()))
    }

    /// Returns the earliest [`Election::poll_timeout`] of the members.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.members.iter().filter_map(Election::poll_timeout).min()
    }

    /// Returns the next action to take, with the index of its member.
    pub fn poll_output(&mut self) -> Option<(usize, ElectionOutput)> {
        self.outputs.pop_front()
    }

    /// Starts all members.
    pub fn start(&mut self, now: Instant) {
        self.update_all(now, |member| member.start(now));
    }

    /// Stops all members, as [`Election::stop`]; when one has a successor, all release their addresses.
    pub fn stop(&mut self, now: Instant) {
        self.update_all(now, |member| member.stop(now));
    }

    /// Handles the timers that have ended, as [`Election::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.update_all(now, |member| member.handle_timeout(now));
    }

    /// Handles an advertisement for the member of this index, as [`Election::handle_advert`]; does
    /// nothing if there is no such member.
    pub fn handle_advert(&mut self, now: Instant, index: usize, advert: &ReceivedAdvert) {
        self.update_one(now, index, |member| member.handle_advert(now, advert));
    }

    /// Changes the priority of the member of this index, as [`Election::set_priority`]; does nothing
    /// if there is no such member.
    ///
    /// # Errors
    /// [`VrrpConfigError::Priority`] if the priority is 0; nothing changes then.
    pub fn set_priority(
        &mut self,
        now: Instant,
        index: usize,
        priority: u8,
    ) -> Result<(), VrrpConfigError> {
        self.update_one(now, index, |member| member.set_priority(now, priority)).unwrap_or(Ok(()))
    }

    /// Sets or clears the fault of the member of this index, as [`Election::set_fault`]. A fault of
    /// one member is a fault of all; does nothing if there is no such member.
    pub fn set_fault(&mut self, now: Instant, index: usize, fault: Option<&str>) {
        if let Some(known) = self.faults.get_mut(index)
            && known.as_deref() != fault
        {
            *known = fault.map(str::to_owned);
        }
        let first = self.faults.iter().flatten().next().cloned();
        self.update_all(now, |member| member.set_fault(now, first.as_deref()));
    }

    fn update_all(&mut self, now: Instant, update: impl FnMut(&mut Election)) {
        let masters_before = self.master_count();
        self.members.iter_mut().for_each(update);
        self.synchronize(now, masters_before);
    }

    fn update_one<R>(
        &mut self,
        now: Instant,
        index: usize,
        update: impl FnOnce(&mut Election) -> R,
    ) -> Option<R> {
        let masters_before = self.master_count();
        let result = self.members.get_mut(index).map(update);
        self.synchronize(now, masters_before);
        result
    }

    fn master_count(&self) -> usize {
        self.members.iter().filter(|member| member.state() == VrrpState::Master).count()
    }

    /// Brings all members into the same state, and collects their outputs.
    fn synchronize(&mut self, now: Instant, masters_before: usize) {
        if self.master_count() < masters_before {
            self.members.iter_mut().for_each(|member| member.step_down_with_group(now));
        } else if !self.members.is_empty() && self.members.iter().all(Election::is_candidate) {
            self.members.iter_mut().for_each(|member| member.become_master_with_group(now));
        }
        for (index, member) in self.members.iter_mut().enumerate() {
            let outputs = std::iter::from_fn(|| member.poll_output());
            self.outputs.extend(outputs.map(|output| (index, output)));
        }
    }
}
