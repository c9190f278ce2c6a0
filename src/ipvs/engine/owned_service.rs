//! A service that the engine keeps as its set says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::check_services::{CheckServices, CheckTarget};
use super::counters::CounterSums;
use super::kernel_service::{apply_all, read_service};
use crate::BackendId;
use crate::backend::{SetSubscription, Snapshot};
use crate::engine::{EngineRequest, ForwardingMethod, NewConnections, SharedService};
use crate::ipvs::client::IpvsClient;
use crate::ipvs::desired::{
    desired_destinations, draining_destinations, forwarding, may_have_connections,
};
use crate::ipvs::destination::{IpvsDestinationStatus, IpvsForwarding};
use crate::ipvs::error::IpvsError;
use crate::ipvs::reconcile::plan_changes;
use crate::ipvs::request::IpvsRequest;
use crate::ipvs::service::IpvsService;
use crate::ipvs::table::IpvsTable;

/// A service that the engine keeps as its set says.
pub(super) struct OwnedService {
    pub(super) request: Box<EngineRequest>,
    pub(super) service: IpvsService,
    pub(super) owner: Arc<SharedService>,
    pub(super) subscription: SetSubscription<SocketAddr>,
    pub(super) sums: CounterSums,
    /// What was logged last, so that what goes on is said once.
    pub(super) said: String,
    pub(super) drain: Option<ServiceDrain>,
    /// Destinations that left the set, and when: they stay until their connections have ended.
    pub(super) leaving: BTreeMap<SocketAddr, Instant>,
    /// What checks of the backends need a mark for.
    pub(super) check_targets: BTreeMap<BackendId, CheckTarget>,
}

/// The end of a service.
pub(super) struct ServiceDrain {
    /// `None` for no limit.
    pub(super) deadline: Option<Instant>,
    pub(super) new_connections: NewConnections,
    pub(super) begun_at: Instant,
    /// Connections at the beginning, and now.
    pub(super) connections: (u64, u64),
    /// Whether the kernel has connections now that may be beginning.
    pub(super) is_unsettled: bool,
}

/// The time after which a connection that had begun without being established has been so, or will not.
/// The kernel counts those that begin with those that have ended.
const SETTLE_TIME: Duration = Duration::from_secs(2);

impl ServiceDrain {
    /// Returns whether the service may be removed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let is_settled = !self.is_unsettled || now >= self.begun_at + SETTLE_TIME;
        (self.connections.1 == 0 && is_settled)
            || self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// Returns how many connections and UDP flows the destinations have; those to this machine itself do not
/// count, because they do without the service. Of a mark, TCP connections that have ended count as long as the
/// kernel remembers them: it does not tell them from UDP flows.
fn open_connections(request: &EngineRequest, destinations: &[IpvsDestinationStatus]) -> u64 {
    let elsewhere =
        destinations.iter().filter(|status| status.destination.forwarding != IpvsForwarding::Local);
    // The kernel counts every flow as inactive.
    let has_flows = request.address.has_udp();
    let open = elsewhere.map(|status| {
        let flows = if has_flows { status.inactive_connections } else { 0 };
        u64::from(status.active_connections) + u64::from(flows)
    });
    open.sum()
}

fn has_unsettled(destinations: &[IpvsDestinationStatus]) -> bool {
    destinations.iter().any(|status| status.inactive_connections > 0)
}

impl OwnedService {
    /// Returns whether connections are waited for.
    pub(super) fn is_ending(&self) -> bool {
        self.drain.is_some() || !self.leaving.is_empty()
    }

    /// Returns the newest snapshot if there is one that was not returned before, and has the waker woken
    /// by the next.
    pub(super) fn next_snapshot(&mut self, waker: &Waker) -> Option<Arc<Snapshot<SocketAddr>>> {
        let mut context = Context::from_waker(waker);
        let mut newest = None;
        while let Poll::Ready(Some(snapshot)) = self.subscription.poll_changed(&mut context) {
            newest = Some(snapshot);
        }
        newest
    }

    /// Reads of the set what its checks need marks for. Returns whether that has changed.
    pub(super) fn update_check_targets(&mut self) -> bool {
        let targets = match (&self.request.check_marks, &self.drain) {
            (Some(_), None) => self.wanted_check_targets(),
            _ => BTreeMap::new(),
        };
        let has_changed = targets != self.check_targets;
        self.check_targets = targets;
        has_changed
    }

    fn wanted_check_targets(&self) -> BTreeMap<BackendId, CheckTarget> {
        let family = self.service.key.family();
        let snapshot = self.subscription.snapshot();
        let targets = snapshot.backends().iter().filter_map(|backend| {
            let method = self.request.methods.get(backend.id());
            let server = backend.target().ip();
            let target = CheckTarget { family, server, forwarding: forwarding(method) };
            (method != ForwardingMethod::Nat).then(|| (backend.id().clone(), target))
        });
        targets.collect()
    }

    /// Tells the checks their marks.
    pub(super) fn publish_check_marks(&self, services: &CheckServices) {
        let Some(marks) = &self.request.check_marks else { return };
        let known = self
            .check_targets
            .iter()
            .filter_map(|(backend, target)| Some((backend.clone(), services.mark(target)?)));
        marks.replace(self.drain.is_none().then(|| known.collect()));
    }

    /// Makes the kernel's service what the set says, and publishes its counters.
    pub(super) fn reconcile(&mut self, client: &mut IpvsClient, now: Instant) {
        let failures = match self.plan(client, now) {
            Ok(changes) => apply_all(client, &changes),
            Err(error) => error.to_string(),
        };
        self.say(failures);
    }

    /// Publishes the service's counters, and says what another program has changed: since the last change
    /// of the set the kernel had what it says.
    pub(super) fn audit(&mut self, client: &mut IpvsClient, repair: bool, now: Instant) {
        let leaving = self.leaving.clone();
        let changes = match self.plan(client, now) {
            Ok(changes) => changes,
            Err(error) => return self.say(error.to_string()),
        };
        let has_left = |change: &IpvsRequest| match change {
            IpvsRequest::RemoveDestination { address, .. } => leaving.contains_key(address),
            _ => false,
        };
        let (own, changes): (Vec<_>, Vec<_>) = changes.into_iter().partition(has_left);
        let failures = apply_all(client, &own);
        if changes.is_empty() {
            return self.say(failures);
        }
        let service = &self.request.service;
        let texts: Vec<_> = changes.iter().map(ToString::to_string).collect();
        let texts = texts.join("; ");
        if !repair {
            return self.say(format!("another program changed IPVS; to repair it: {texts}"));
        }
        tracing::warn!("service {service}: another program changed IPVS, repaired by: {texts}");
        let failures = apply_all(client, &changes);
        self.say(failures);
    }

    /// Reads what the kernel has, publishes its counters, and returns what is to be changed.
    fn plan(
        &mut self,
        client: &mut IpvsClient,
        now: Instant,
    ) -> Result<Vec<IpvsRequest>, IpvsError> {
        let snapshot = self.subscription.snapshot();
        let (mut present, mut desired) = (IpvsTable::new(), IpvsTable::new());
        let mut destinations = match &self.drain {
            None => desired_destinations(&self.request, &snapshot),
            Some(drain) => draining_destinations(&self.request, &snapshot, drain.new_connections),
        };
        let leaving = std::mem::take(&mut self.leaving);
        if let Some((status, known)) = read_service(client, &self.service.key)? {
            let ids = self.backend_ids(&snapshot);
            let counters = self.sums.add(&status, &known, &ids);
            if let Some(drain) = &mut self.drain {
                drain.connections.1 = open_connections(&self.request, &known);
                drain.is_unsettled = has_unsettled(&known);
            }
            self.owner.publish(counters);
            for status in &known {
                let address = status.destination.address;
                let is_wanted = ids.contains_key(&address)
                    || destinations.iter().any(|wanted| wanted.address == address);
                let since = leaving.get(&address).copied().unwrap_or(now);
                let has_settled = now >= since + SETTLE_TIME;
                if !is_wanted && may_have_connections(&self.request, status, has_settled) {
                    let mut destination = status.destination.clone();
                    destination.weight = 0;
                    destinations.push(destination);
                    self.leaving.insert(address, since);
                }
            }
            present.insert(status.service, known.into_iter().map(|status| status.destination));
        }
        desired.insert(self.service.clone(), destinations);
        Ok(plan_changes(&present, &desired, &BTreeSet::new()))
    }

    /// Returns the backends by the addresses of their destinations.
    fn backend_ids(&self, snapshot: &Snapshot<SocketAddr>) -> BTreeMap<SocketAddr, BackendId> {
        let backends = snapshot.backends().iter();
        let ids = backends.map(|backend| {
            (self.request.destination_address(*backend.target()), backend.id().clone())
        });
        ids.collect()
    }

    /// Logs what failed, once for as long as it is the same.
    pub(super) fn say(&mut self, failures: String) {
        if !failures.is_empty() && failures != self.said {
            tracing::error!("service {}: engine ipvs: {failures}", self.request.service);
        }
        self.said = failures;
    }
}
