//! A virtual service that runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::config::{Protocol, ServiceConfig};
use super::error::ServiceError;
use super::status::{ServerStatus, ServiceStatus, Totals};
use super::wanted::{Changes, ServerChange};
use crate::backend::{BackendSet, Limits, Spec, State};
use crate::balancer::{Balancer, Persistence};
use crate::forward::{Drained, ForwardError, Forwarder, Handle, UdpForwarder, UdpHandle};
use crate::health::{Monitor, Saved, Watch};
use crate::scheduler::Registry;
use crate::sync::{Mutex, lock};
use crate::{BackendId, SetError};

/// A virtual service that runs.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    config: ServiceConfig,
    balancer: Balancer<SocketAddr>,
    pub(super) persistence: Option<Arc<Persistence<SocketAddr>>>,
    watch: Option<Watch>,
    hold: Hold,
    /// What other directors did before.
    before: Mutex<Totals>,
    pub(super) changes: Mutex<Changes>,
}

/// The hold on what carries it.
#[derive(Debug)]
enum Hold {
    Tcp(Handle),
    Udp(UdpHandle),
}

/// What carries it, until it has been drained.
pub(super) type Running = JoinHandle<Result<Drained, ForwardError>>;

impl Service {
    /// Starts it; `ahead` of its address, which may come later.
    pub(super) fn start(
        config: &ServiceConfig,
        workers: Option<usize>,
        ahead: bool,
        monitor: &Monitor,
    ) -> Result<(Self, Running), ServiceError> {
        let set = BackendSet::new();
        // The kernel's order: the last to be inserted comes first.
        set.edit(|edit| {
            for server in config.servers.iter().rev() {
                let limits = Limits::max(server.max_connections.unwrap_or(0));
                edit.insert(Spec::from(server.address).weight(server.weight).limits(limits))?;
            }
            Ok(())
        })?;
        let balancer = Balancer::new(&set, Registry::default().parse(&config.scheduler)?)?;
        let persistence = config.persistence().map(|rule| Arc::new(rule.over(balancer.clone())));
        let plan = config.plan().map_err(ServiceError::Config)?;
        let watch = plan.map(|plan| monitor.watch(&set, plan)).transpose()?;
        let (hold, running) = match config.protocol {
            Protocol::Tcp => {
                let mut forwarder = if ahead {
                    Forwarder::bind_ahead(config.listen, balancer.clone())?
                } else {
                    Forwarder::bind(config.listen, balancer.clone())?
                };
                forwarder = forwarder.name(&config.name);
                if let Some(workers) = workers {
                    forwarder = forwarder.workers(workers);
                }
                if let Some(sorry) = config.sorry_server {
                    forwarder = forwarder.sorry_server(sorry);
                }
                if let Some(persistence) = &persistence {
                    forwarder = forwarder.persistence(Arc::clone(persistence));
                }
                (Hold::Tcp(forwarder.handle()), tokio::spawn(forwarder.run()))
            }
            Protocol::Udp => {
                let mut forwarder = if ahead {
                    UdpForwarder::bind_ahead(config.listen, balancer.clone())?
                } else {
                    UdpForwarder::bind(config.listen, balancer.clone())?
                };
                if let Some(workers) = workers {
                    forwarder = forwarder.workers(workers);
                }
                if let Some(persistence) = &persistence {
                    forwarder = forwarder.persistence(Arc::clone(persistence));
                }
                (Hold::Udp(forwarder.handle()), tokio::spawn(forwarder.run()))
            }
        };
        let service = Self {
            name: config.name.clone(),
            config: config.clone(),
            balancer,
            persistence,
            watch,
            hold,
            before: Mutex::new(Totals::default()),
            changes: Mutex::new(Changes::default()),
        };
        Ok((service, running))
    }

    /// Takes no more connections; those that are there have so long.
    pub(super) fn drain(&self, within: Duration) {
        match &self.hold {
            Hold::Tcp(handle) => handle.shutdown(within),
            Hold::Udp(handle) => handle.shutdown(within),
        }
    }

    /// Is there a server that could serve?
    pub(super) fn is_up(&self) -> bool {
        let snapshot = self.balancer.snapshot();
        snapshot.members().iter().any(|member| member.state() == State::Eligible)
    }

    pub(super) fn has(&self, server: &str) -> bool {
        self.balancer.snapshot().find(&BackendId::from(server)).is_some()
    }

    /// Carries out what was changed by hand.
    pub(super) fn apply(&self, server: &str, change: ServerChange) -> Result<(), SetError> {
        let id = BackendId::from(server);
        self.balancer.set().edit(|edit| {
            if let Some(weight) = change.weight {
                edit.set_weight(&id, weight)?;
            }
            if let Some(state) = change.state {
                edit.set_admin(&id, state.into())?;
            }
            Ok(())
        })
    }

    /// What checks and traffic have taught, without counts.
    pub(super) fn learned(&self) -> Option<Saved> {
        self.watch.as_ref().map(|watch| watch.export().without_outcomes())
    }

    /// Takes up what another director has learned; its own checks go before that.
    pub(super) fn learn(&self, saved: &Saved) -> Result<(), SetError> {
        self.watch.as_ref().map_or(Ok(()), |watch| watch.restore(saved))
    }

    /// What all directors have done.
    pub(super) fn totals(&self) -> Totals {
        lock(&self.before).plus(self.own_totals())
    }

    /// Takes over what all have done, as another knows it: totals go on, and never back.
    pub(super) fn take_totals(&self, totals: Totals) {
        *lock(&self.before) = totals.minus(self.own_totals());
    }

    fn own_totals(&self) -> Totals {
        match &self.hold {
            Hold::Tcp(handle) => {
                let counters = handle.counters();
                Totals {
                    accepted: counters.accepted,
                    refused: counters.refused.total(),
                    bytes_to_servers: counters.bytes_to_servers,
                    bytes_to_clients: counters.bytes_to_clients,
                }
            }
            Hold::Udp(handle) => {
                let counters = handle.counters();
                Totals {
                    accepted: counters.flows_started,
                    refused: counters.shed.total(),
                    bytes_to_servers: counters.to_servers.bytes,
                    bytes_to_clients: counters.to_clients.bytes,
                }
            }
        }
    }

    pub(super) fn status(&self) -> ServiceStatus {
        let snapshot = self.balancer.snapshot();
        let servers =
            snapshot.iter().enumerate().map(|(position, (backend, member))| ServerStatus {
                address: backend.id().to_string(),
                state: member.state().name(),
                why: snapshot.why(position).map(ToString::to_string),
                weight: member.weight(),
                active: backend.load().active,
                outcomes: backend.outcomes(),
            });
        let (protocol, active) = match &self.hold {
            Hold::Tcp(handle) => ("tcp", handle.counters().active),
            Hold::Udp(handle) => ("udp", handle.counters().flows_active),
        };
        ServiceStatus {
            name: self.name.clone(),
            listen: self.listen(),
            protocol,
            scheduler: self.config.scheduler.clone(),
            totals: self.totals(),
            active,
            persistent: self.persistence.as_ref().map_or(0, |it| it.len()),
            servers: servers.collect(),
        }
    }

    /// Where it listens, with the real port where 0 was asked for.
    pub(super) fn listen(&self) -> SocketAddr {
        match &self.hold {
            Hold::Tcp(handle) => handle.local_addr().unwrap_or(self.config.listen),
            Hold::Udp(handle) => handle.local_addr(),
        }
    }
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
