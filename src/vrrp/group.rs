//! Routers that are master together or not at all.

use std::collections::VecDeque;
use std::time::Instant;

use super::{ConfigError, Heard, Output, Router, RouterConfig, State};

/// Several virtual routers of one director that must be master together: the inside and the outside
/// address of a gateway, IPv4 and IPv6. keepalived's `vrrp_sync_group`.
///
/// It becomes master when every one of them would; as soon as one is not master all are backups, and
/// while one may not be, none is.
#[derive(Debug)]
pub struct Group {
    routers: Vec<Router>,
    faults: Vec<bool>,
    outputs: VecDeque<(usize, Output)>,
}

impl Group {
    /// A group that has not started.
    ///
    /// # Errors
    /// Those of the first configuration that makes no sense.
    pub fn new(configs: impl IntoIterator<Item = RouterConfig>) -> Result<Self, ConfigError> {
        let routers = configs.into_iter().map(Router::new);
        let mut routers = routers.collect::<Result<Vec<_>, ConfigError>>()?;
        if routers.len() > 1 {
            routers.iter_mut().for_each(Router::join);
        }
        Ok(Self { faults: vec![false; routers.len()], routers, outputs: VecDeque::new() })
    }

    /// Its routers, in the order of their configurations.
    #[must_use]
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }

    /// The next turn of any of them.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.routers.iter().filter_map(Router::poll_timeout).min()
    }

    /// What is to be done next, and by which router.
    pub fn poll_output(&mut self) -> Option<(usize, Output)> {
        self.outputs.pop_front()
    }

    /// Starts all of them.
    pub fn start(&mut self, now: Instant) {
        self.each(now, |router| router.start(now));
    }

    /// Stops all of them, as [`Router::stop`]; as soon as one has a successor all give way.
    pub fn stop(&mut self, now: Instant) {
        self.each(now, |router| router.stop(now));
    }

    /// As [`Router::handle_timeout`], for all that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.each(now, |router| router.handle_timeout(now));
    }

    /// As [`Router::handle_advert`], for one; nothing where there is none at that place.
    pub fn handle_advert(&mut self, now: Instant, router: usize, heard: &Heard) {
        self.one(now, router, |router| router.handle_advert(now, heard));
    }

    /// As [`Router::set_priority`], for one.
    pub fn set_priority(&mut self, now: Instant, router: usize, priority: u8) {
        self.one(now, router, |router| router.set_priority(now, priority));
    }

    /// As [`Router::set_fault`], for one: it is everybody's.
    pub fn set_fault(&mut self, now: Instant, router: usize, is_fault: bool) {
        if let Some(fault) = self.faults.get_mut(router) {
            *fault = is_fault;
        }
        let is_fault = self.faults.contains(&true);
        self.each(now, |router| router.set_fault(now, is_fault));
    }

    fn each(&mut self, now: Instant, act: impl FnMut(&mut Router)) {
        let was = self.masters();
        self.routers.iter_mut().for_each(act);
        self.settle(now, was);
    }

    fn one(&mut self, now: Instant, router: usize, act: impl FnOnce(&mut Router)) {
        let was = self.masters();
        if let Some(router) = self.routers.get_mut(router) {
            act(router);
        }
        self.settle(now, was);
    }

    fn masters(&self) -> usize {
        self.routers.iter().filter(|it| it.state() == State::Master).count()
    }

    /// Brings the others along.
    fn settle(&mut self, now: Instant, was: usize) {
        if self.masters() < was {
            self.routers.iter_mut().for_each(|it| it.give_up_with_others(now));
        } else if !self.routers.is_empty() && self.routers.iter().all(Router::wants) {
            self.routers.iter_mut().for_each(|it| it.take_with_others(now));
        }
        for (place, router) in self.routers.iter_mut().enumerate() {
            self.outputs.extend(std::iter::from_fn(|| router.poll_output()).map(|it| (place, it)));
        }
    }
}
