//! A service that the engine keeps as its set says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::server_slots::{ServerSlot, ServerSlots};
use super::service_table::ServiceTable;
use super::wanted_server::wanted_server;
use crate::backend::{Backend, BackendState, Members, SetSubscription, Snapshot};
use crate::balancer::{Persistence, PickError};
use crate::engine::{EngineRequest, ForwardingMethod, SharedService};
use crate::packet::error::PacketError;
use crate::packet::layout::{
    RawServer, RawService, RawServiceKey, SERVICE_IS_ELSEWHERE, SERVICE_IS_NEW_HERE, SERVICE_SHEDS,
    SERVICE_UNOWNED,
};
use crate::packet::maps::PacketMaps;
use crate::scheduler::Flow;
use crate::setting::SettingError;
use crate::{BackendId, Lease};

/// A service that the engine keeps as its set says.
pub(super) struct PacketVirtualService {
    pub(super) key: RawServiceKey,
    pub(super) id: u32,
    pub(super) request: Box<EngineRequest>,
    pub(super) owner: Arc<SharedService>,
    pub(super) subscription: SetSubscription<SocketAddr>,
    pub(super) persistence: Option<Arc<Persistence<SocketAddr>>>,
    /// The numbers of the servers.
    pub(super) servers: BTreeMap<BackendId, u32>,
    /// Those that the program cannot send packets to, each of which was logged.
    refused: BTreeSet<BackendId>,
    sorry_server: Option<u32>,
    /// The version of the balancer that the program has.
    version: u64,
    /// What the program has.
    table: ServiceTable,
    published: Option<RawService>,
    /// What servers have counted that are gone.
    pub(super) retired: RetiredCounters,
    pub(super) drain: Option<PacketServiceDrain>,
    /// Whether this machine does not have the address.
    pub(super) is_elsewhere: bool,
    /// When this machine got the address from another one, a moment ago.
    pub(super) gained_at: Option<Instant>,
}

/// What servers have counted that are gone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetiredCounters {
    pub(super) connections: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// The end of a service.
pub(super) struct PacketServiceDrain {
    /// `None` for no limit.
    pub(super) deadline: Option<Instant>,
    /// The flows at the beginning, when they are known.
    pub(super) flows: Option<u64>,
}

/// Who gets a new flow.
pub(super) enum ChosenServer {
    /// A backend of the set.
    Backend(u32, Lease<SocketAddr>),
    /// The sorry server.
    Sorry(u32),
    /// A backend that the program does not have: it cannot send packets to it, or it is newer than what the thread
    /// has seen of the set.
    Unreachable(Lease<SocketAddr>),
}

impl PacketVirtualService {
    pub(super) fn new(
        key: RawServiceKey,
        id: u32,
        request: Box<EngineRequest>,
        owner: Arc<SharedService>,
    ) -> Result<Self, SettingError> {
        let persistence = match (&request.persistence_table, request.persistence) {
            (Some(table), _) => Some(Arc::clone(table)),
            (None, Some(wanted)) => {
                let builder = Persistence::builder(wanted.timeout);
                let builder = builder.ipv4_prefix(wanted.prefix.min(32)).ipv6_prefix(wanted.prefix);
                Some(Arc::new(builder.build(request.balancer.clone())?))
            }
            (None, None) => None,
        };
        Ok(Self {
            key,
            id,
            subscription: request.balancer.backend_set().subscribe(),
            persistence,
            request,
            owner,
            servers: BTreeMap::new(),
            refused: BTreeSet::new(),
            sorry_server: None,
            version: 0,
            table: ServiceTable::default(),
            published: None,
            retired: RetiredCounters::default(),
            drain: None,
            is_elsewhere: false,
            gained_at: None,
        })
    }

    /// Takes what is counted of the service that this one replaces, and the clients that return to a server.
    pub(super) fn inherit(&mut self, replaced: &Self, now: Instant) {
        self.retired = replaced.retired;
        self.gained_at = replaced.gained_at;
        // A table of the owner is the owner's to keep.
        if self.request.persistence_table.is_none()
            && let (Some(persistence), Some(old)) = (&self.persistence, &replaced.persistence)
        {
            persistence.restore(old.export(now, None), now);
        }
    }

    /// Returns whether the set or the scheduler has changed, and has the waker woken by the next change of the set.
    pub(super) fn has_changed(&mut self, waker: &Waker) -> bool {
        let mut context = Context::from_waker(waker);
        let mut has_changed = self.request.balancer.version() != self.version;
        while let Poll::Ready(Some(_)) = self.subscription.poll_changed(&mut context) {
            has_changed = true;
        }
        has_changed
    }

    /// Gives the program the servers and the table of the set as it is now, and the service after them.
    pub(super) fn reconcile(
        &mut self,
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
    ) -> Result<(), PacketError> {
        // The version first: what is published in between is read again. So is all of it if it fails.
        let version = self.request.balancer.version();
        let (snapshot, lookup) = self.request.balancer.lookup_table(self.key.address());
        self.assign_servers(&snapshot, maps, servers)?;
        let mut is_any_eligible = false;
        for member in snapshot.members().iter() {
            let is_eligible = member.share() > 0;
            is_any_eligible |= is_eligible;
            if let Some(index) = self.servers.get(member.id()) {
                set_available(*index, is_eligible, maps, servers)?;
            }
        }
        let table = match (self.sorry_server, lookup) {
            // The table decides for the scheduler, which would choose nobody.
            (Some(sorry_server), _) if !is_any_eligible => ServiceTable::of_one(sorry_server),
            // Persistence is in this process, which is asked before the table.
            (_, Some(lookup)) if self.persistence.is_none() && is_any_eligible => {
                ServiceTable::keyed(&lookup, self.server_at(snapshot.members()))
            }
            _ => {
                let members = snapshot.members();
                ServiceTable::fallback(members, self.server_at(members))
            }
        };
        let sheds = if snapshot.members().has_limits() { SERVICE_SHEDS } else { 0 };
        let service = RawService {
            id: self.id,
            slots: u32::try_from(table.slots.len()).unwrap_or(u32::MAX),
            flags: table.flags | sheds | self.place_flags(),
            rule: table.rule,
            seed: table.seed,
        };
        // The program reads no slot that is not there: it leaves the flow to the director for the moment.
        if table.slots != self.table.slots || self.published.is_none() {
            maps.set_table(self.id, &table.slots)?;
        }
        self.table = table;
        if self.drain.is_none() && self.published != Some(service) {
            maps.set_service(&self.key, &service)?;
            maps.set_service(&self.key.of_address(), &RawService::default())?;
            self.published = Some(service);
        }
        self.version = version;
        Ok(())
    }

    fn assign_servers(
        &mut self,
        snapshot: &Snapshot<SocketAddr>,
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
    ) -> Result<(), PacketError> {
        let (mut known, mut refused) = (BTreeMap::new(), BTreeSet::new());
        for backend in snapshot.backends() {
            let method = self.request.methods.get(backend.id());
            let server = match self.wanted_server(*backend.target(), method) {
                Ok(server) => server,
                Err(reason) => {
                    if !self.refused.contains(backend.id()) {
                        let service = &self.request.service;
                        tracing::error!("service {service}: engine packet: {reason}");
                    }
                    refused.insert(backend.id().clone());
                    continue;
                }
            };
            let is_same =
                |index: &u32| servers.get(*index).is_some_and(|slot| slot.raw.is_same(&server));
            let index = match self.servers.get(backend.id()).copied().filter(is_same) {
                Some(index) => index,
                None => servers.assign(maps, &server, Some(backend.id()))?,
            };
            known.insert(backend.id().clone(), index);
        }
        self.refused = refused;
        let left = std::mem::replace(&mut self.servers, known);
        for index in left.into_values() {
            if !self.servers.values().any(|known| *known == index) {
                release(index, maps, servers)?;
            }
        }
        if let (Some(address), None) = (self.request.sorry_server, self.sorry_server) {
            // The claim was refused if it cannot be reached.
            if let Ok(server) = self.wanted_server(address, self.request.sorry_server_method) {
                let index = servers.assign(maps, &server, None)?;
                set_available(index, true, maps, servers)?;
                self.sorry_server = Some(index);
            }
        }
        Ok(())
    }

    /// Returns what the program is to know of a server, or why it cannot send packets to it.
    fn wanted_server(
        &self,
        target: SocketAddr,
        method: ForwardingMethod,
    ) -> Result<RawServer, String> {
        let address = self.request.destination_address(target);
        let server = wanted_server(self.key.address(), address, method)?;
        Ok(RawServer { service: self.id, ..server })
    }

    /// Returns how the number of the server at a position is found.
    fn server_at(&self, members: &Members) -> impl Fn(u16) -> Option<u32> {
        move |position| {
            let member = members.get(usize::from(position))?;
            self.servers.get(member.id()).copied()
        }
    }

    /// Asks the scheduler, or the persistence before it.
    pub(super) fn choose(&self, flow: &Flow, now: Instant) -> Result<ChosenServer, PickError> {
        let picked = match &self.persistence {
            Some(persistence) => persistence.pick(flow, now),
            None => self.request.balancer.pick(flow),
        };
        match picked {
            Ok(lease) => match self.servers.get(lease.id()) {
                Some(index) => Ok(ChosenServer::Backend(*index, lease)),
                None => Ok(ChosenServer::Unreachable(lease)),
            },
            Err(error) => match (self.sorry_server, error) {
                (Some(index), PickError::AllDown | PickError::NoBackends | PickError::NoQuorum) => {
                    Ok(ChosenServer::Sorry(index))
                }
                _ => Err(error),
            },
        }
    }

    /// Returns whether the set has this very backend.
    pub(super) fn has_backend(&self, backend: &Arc<Backend<SocketAddr>>) -> bool {
        let snapshot = self.subscription.snapshot();
        snapshot.find(backend.id()).is_some_and(|present| Arc::ptr_eq(present, backend))
    }

    /// Returns a lease for a flow that a server has already.
    pub(super) fn lease_of(&self, slot: &ServerSlot) -> Option<Lease<SocketAddr>> {
        self.request.balancer.lease_existing(slot.backend.as_ref()?)
    }

    /// Returns the numbers of servers whose flows end at once, also those that a backend had before.
    pub(super) fn cut_servers(&self, servers: &ServerSlots) -> Vec<u32> {
        if !self.request.cut_on_down {
            return Vec::new();
        }
        let snapshot = self.subscription.snapshot();
        let is_down = |state| matches!(state, BackendState::Down | BackendState::Disabled);
        let members = snapshot.members().iter().filter(|member| is_down(member.state()));
        let down: BTreeSet<_> = members.map(|member| member.id()).collect();
        let is_cut = |slot: &ServerSlot| {
            slot.raw.service == self.id && slot.backend.as_ref().is_some_and(|id| down.contains(id))
        };
        servers.iter().filter(|(_, slot)| is_cut(slot)).map(|(index, _)| index).collect()
    }

    /// Returns the numbers of all servers.
    pub(super) fn server_indexes(&self) -> impl Iterator<Item = u32> {
        self.servers.values().copied().chain(self.sorry_server)
    }

    /// Has the next reconciliation write the service and assign its servers anew: another process may have changed
    /// both.
    pub(super) fn publish_again(&mut self) {
        self.published = None;
        self.servers.clear();
        self.sorry_server = None;
    }

    const fn place_flags(&self) -> u32 {
        match (self.is_elsewhere, self.gained_at) {
            (true, _) => SERVICE_IS_ELSEWHERE,
            (false, Some(_)) => SERVICE_IS_NEW_HERE,
            (false, None) => 0,
        }
    }

    /// Tells the program whether this machine has the address.
    pub(super) fn publish_place(&mut self, maps: &mut PacketMaps) -> Result<(), PacketError> {
        let place = self.place_flags();
        let Some(service) = &mut self.published else { return Ok(()) };
        service.flags = service.flags & !(SERVICE_IS_ELSEWHERE | SERVICE_IS_NEW_HERE) | place;
        maps.set_service(&self.key, service)
    }

    /// Says that checks reach no server of it by a mark.
    pub(super) fn forget_check_marks(&self) {
        if let Some(marks) = &self.request.check_marks {
            marks.replace(None);
        }
    }

    /// Leaves the service to a successor. Until that has it, the table decides.
    pub(super) fn hand_over(&self, maps: &mut PacketMaps) -> Result<(), PacketError> {
        let Some(service) = self.published else { return Ok(()) };
        let flags = service.flags | SERVICE_UNOWNED;
        maps.set_service(&self.key, &RawService { flags, ..service })
    }

    #[cfg(test)]
    pub(super) fn published_flags(&self) -> u32 {
        self.published.expect("it is published").flags
    }

    /// Stops new flows.
    pub(super) fn begin_drain(
        &mut self,
        within: Duration,
        now: Instant,
        maps: &mut PacketMaps,
    ) -> Result<(), PacketError> {
        let flows = self.drain.as_ref().and_then(|drain| drain.flows);
        self.drain = Some(PacketServiceDrain { deadline: now.checked_add(within), flows });
        self.published = None;
        maps.remove_service(&self.key)
    }

    /// Gives the numbers of the servers back.
    pub(super) fn release_servers(
        &mut self,
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
    ) -> Result<(), PacketError> {
        let left = std::mem::take(&mut self.servers).into_values().chain(self.sorry_server.take());
        left.into_iter().try_for_each(|index| release(index, maps, servers))
    }
}

fn set_available(
    index: u32,
    is_available: bool,
    maps: &mut PacketMaps,
    servers: &mut ServerSlots,
) -> Result<(), PacketError> {
    servers.update(maps, index, |raw| raw.is_available = u8::from(is_available))
}

/// Takes a server from its service. Its flows go on.
fn release(
    index: u32,
    maps: &mut PacketMaps,
    servers: &mut ServerSlots,
) -> Result<(), PacketError> {
    if let Some(slot) = servers.get_mut(index) {
        slot.is_member = false;
    }
    set_available(index, false, maps, servers)
}
