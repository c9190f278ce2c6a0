//! Routers that are master together or not at all.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Election, ElectionConfig, ElectionOutput, ReceivedAdvert, VrrpConfigError, VrrpState};

/// Several virtual routers of one director that must be master together: the inside and the outside
/// address of a gateway, IPv4 and IPv6. keepalived's `vrrp_sync_group`.
///
/// It becomes master when every one of them would; as soon as one is not master all are backups, and
/// while one may not be, none is.
#[derive(Debug)]
pub struct VrrpSyncGroup {
    members: Vec<Election>,
    faults: Vec<bool>,
    outputs: VecDeque<(usize, ElectionOutput)>,
}

impl VrrpSyncGroup {
    /// A group that has not started.
    ///
    /// # Errors
    /// Those of the first configuration that makes no sense.
    pub fn new(configs: impl IntoIterator<Item = ElectionConfig>) -> Result<Self, VrrpConfigError> {
        let routers = configs.into_iter().map(Election::new);
        let mut routers = routers.collect::<Result<Vec<_>, VrrpConfigError>>()?;
        if routers.len() > 1 {
            routers.iter_mut().for_each(Election::set_grouped);
        }
        Ok(Self { faults: vec![false; routers.len()], members: routers, outputs: VecDeque::new() })
    }

    /// Its routers, in the order of their configurations.
    #[must_use]
    pub fn members(&self) -> &[Election] {
        &self.members
    }

    /// The next turn of any of them.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.members.iter().filter_map(Election::poll_timeout).min()
    }

    /// What is to be done next, and by which router.
    pub fn poll_output(&mut self) -> Option<(usize, ElectionOutput)> {
        self.outputs.pop_front()
    }

    /// Starts all of them.
    pub fn start(&mut self, now: Instant) {
        self.update_all(now, |router| router.start(now));
    }

    /// Stops all of them, as [`Election::stop`]; as soon as one has a successor all give way.
    pub fn stop(&mut self, now: Instant) {
        self.update_all(now, |router| router.stop(now));
    }

    /// As [`Election::handle_timeout`], for all that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.update_all(now, |router| router.handle_timeout(now));
    }

    /// As [`Election::handle_advert`], for one; nothing where there is none at that place.
    pub fn handle_advert(&mut self, now: Instant, router: usize, heard: &ReceivedAdvert) {
        self.update_one(now, router, |router| router.handle_advert(now, heard));
    }

    /// As [`Election::set_priority`], for one.
    pub fn set_priority(&mut self, now: Instant, router: usize, priority: u8) {
        self.update_one(now, router, |router| router.set_priority(now, priority));
    }

    /// As [`Election::set_fault`], for one: it is everybody's.
    pub fn set_fault(&mut self, now: Instant, router: usize, is_fault: bool) {
        if let Some(fault) = self.faults.get_mut(router) {
            *fault = is_fault;
        }
        let is_fault = self.faults.contains(&true);
        self.update_all(now, |router| router.set_fault(now, is_fault));
    }

    fn update_all(&mut self, now: Instant, act: impl FnMut(&mut Election)) {
        let was = self.master_count();
        self.members.iter_mut().for_each(act);
        self.synchronize(now, was);
    }

    fn update_one(&mut self, now: Instant, router: usize, act: impl FnOnce(&mut Election)) {
        let was = self.master_count();
        if let Some(router) = self.members.get_mut(router) {
            act(router);
        }
        self.synchronize(now, was);
    }

    fn master_count(&self) -> usize {
        self.members.iter().filter(|it| it.state() == VrrpState::Master).count()
    }

    /// Brings the others along.
    fn synchronize(&mut self, now: Instant, was: usize) {
        if self.master_count() < was {
            self.members.iter_mut().for_each(|it| it.step_down_with_group(now));
        } else if !self.members.is_empty() && self.members.iter().all(Election::is_candidate) {
            self.members.iter_mut().for_each(|it| it.become_master_with_group(now));
        }
        for (place, router) in self.members.iter_mut().enumerate() {
            self.outputs.extend(std::iter::from_fn(|| router.poll_output()).map(|it| (place, it)));
        }
    }
}
