//! An overview of all services and of the servers that need attention, for the status page and
//! `lvs top`: a page that is open asks for it each second, so that it must cost little with many
//! services.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::applied::PartStatus;
use super::history::{HistoryReader, ServiceRates};
use super::overrides::{ChangeStamp, ServiceOverrides};
use super::service::VirtualService;
use super::state_ages::{ServiceState, StateAges};
use super::status::DirectorStatus;
use super::sync::SyncStatus;
use super::time::{saturating_millis, tokio_now};
use crate::announce::AnnounceStatus;
use crate::backend::{Backend, Member, Snapshot};
use crate::vrrp::VrrpStatus;

/// Servers that an overview lists at most.
const MAX_LISTED_SERVERS: usize = 200;

/// The director, a line for each service, and the servers that need attention.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DirectorOverview {
    version: &'static str,
    host: String,
    uptime_ms: u64,
    active: bool,
    vrrp: Option<VrrpStatus>,
    announce: Option<AnnounceStatus>,
    sync: Option<SyncStatus>,
    failed_parts: Vec<PartStatus>,
    services: Vec<ServiceOverview>,
    /// Servers that match the search; without a search those that are not eligible, or changed by hand.
    servers: Vec<ServerSummary>,
    /// How many servers there are for the list, which has [`MAX_LISTED_SERVERS`] at most.
    servers_found: usize,
}

/// One service.
#[derive(Clone, Debug, Serialize)]
struct ServiceOverview {
    name: String,
    listen: Vec<String>,
    protocol: &'static str,
    scheduler: String,
    state: ServiceState,
    state_age_ms: u64,
    panicking: bool,
    quorum: bool,
    /// The number of servers in each state.
    servers: BTreeMap<&'static str, u32>,
    /// The number of servers that an operator has changed.
    by_hand: u32,
    /// Connections or flows of this moment.
    active: u64,
    rates: ServiceRates,
}

/// One server.
#[derive(Clone, Debug, Serialize)]
struct ServerSummary {
    service: String,
    address: String,
    name: Option<String>,
    state: &'static str,
    state_age_ms: u64,
    reason: Option<String>,
    weight: u32,
    active: u32,
    changed: Option<ChangeStamp>,
}

impl DirectorOverview {
    /// Returns the overview of this moment. `director` is its status without services.
    pub(super) fn new(
        director: DirectorStatus,
        services: &[Arc<VirtualService>],
        history: &HistoryReader,
        search: &str,
    ) -> Self {
        let mut list = ServerList { search: search.to_lowercase(), servers: Vec::new(), found: 0 };
        let services = services.iter().map(|service| {
            history.read_series(&service.name, |series| {
                service_overview(service, series.rates(), &series.ages, &mut list)
            })
        });
        let services = services.collect();
        let DirectorStatus {
            version,
            host,
            uptime_ms,
            active,
            vrrp,
            announce,
            sync,
            failed_parts,
            ..
        } = director;
        Self {
            version,
            host,
            uptime_ms,
            active,
            vrrp,
            announce,
            sync,
            failed_parts,
            services,
            servers: list.servers,
            servers_found: list.found,
        }
    }
}

/// The list of servers, as it grows.
struct ServerList {
    /// In lower case.
    search: String,
    servers: Vec<ServerSummary>,
    found: usize,
}

fn service_overview(
    service: &VirtualService,
    rates: ServiceRates,
    ages: &StateAges,
    list: &mut ServerList,
) -> ServiceOverview {
    let now = tokio_now();
    let snapshot = service.balancer.snapshot();
    let mut servers = BTreeMap::new();
    let mut active = 0;
    for (backend, member) in snapshot.iter() {
        *servers.entry(member.state().name()).or_default() += 1;
        let load = backend.load();
        active += u64::from(load.active) + u64::from(load.inactive);
    }
    let overrides = service.overrides();
    let is_changed = |backend: &Backend<SocketAddr>| overrides.contains(backend.id().as_str());
    let by_hand = snapshot.backends().iter().filter(|backend| is_changed(backend)).count();
    list.add_servers_of(service, &snapshot, &overrides, ages);
    let state = service.state(&snapshot);
    ServiceOverview {
        name: service.name.clone(),
        listen: service.local_addresses(),
        protocol: service.protocol_name(),
        scheduler: service.scheduler(),
        state,
        state_age_ms: saturating_millis(ages.service_age(state, now)),
        panicking: snapshot.is_panicking(),
        quorum: snapshot.has_quorum(),
        servers,
        by_hand: u32::try_from(by_hand).unwrap_or(u32::MAX),
        active,
        rates,
    }
}

impl ServerList {
    /// Adds the servers of a service that belong into the list, oldest first.
    fn add_servers_of(
        &mut self,
        service: &VirtualService,
        snapshot: &Snapshot<SocketAddr>,
        overrides: &ServiceOverrides,
        ages: &StateAges,
    ) {
        // Most services have no server to list, and their names are not read.
        let is_listed = |backend: &Backend<SocketAddr>, member: &Member| {
            member.state().name() != "eligible" || overrides.contains(backend.id().as_str())
        };
        if self.search.is_empty()
            && !snapshot.iter().any(|(backend, member)| is_listed(backend, member))
        {
            return;
        }
        let configured = service.desired_servers().into_iter().map(|server| server.config);
        let names =
            configured.filter_map(|config| Some((config.address.to_string(), config.name?)));
        let names: HashMap<String, String> = names.collect();
        let now = tokio_now();
        let members: Vec<_> = snapshot.iter().enumerate().collect();
        for (position, (backend, member)) in members.into_iter().rev() {
            let address = backend.id().as_str();
            let name = names.get(address);
            let has_text = |text: &str| text.to_lowercase().contains(&self.search);
            let is_found = match self.search.is_empty() {
                true => is_listed(backend, member),
                false => has_text(address) || name.is_some_and(|name| has_text(name)),
            };
            if !is_found {
                continue;
            }
            self.found += 1;
            if self.servers.len() == MAX_LISTED_SERVERS {
                continue;
            }
            let load = backend.load();
            self.servers.push(ServerSummary {
                service: service.name.clone(),
                address: address.to_owned(),
                name: name.cloned(),
                state: member.state().name(),
                state_age_ms: saturating_millis(ages.server_age(backend.id(), member.state(), now)),
                reason: snapshot.reason(position).map(ToString::to_string),
                weight: member.weight(),
                active: load.active.saturating_add(load.inactive),
                changed: overrides.stamp(address).cloned(),
            });
        }
    }
}
