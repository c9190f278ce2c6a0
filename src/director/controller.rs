//! The task that owns everything that runs in a director, and runs its commands.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::admin::AdminContext;
use super::announce::AnnounceSlot;
use super::applied::{AppliedConfig, ReloadStatusSlot};
use super::command::{ControlCommand, ControlReceiver, SuccessorServes, WeakControlSender};
use super::engines::EngineSet;
use super::error::DirectorError;
use super::history::{HistoryReader, run_sampler};
use super::notify::run_health_notify;
use super::registry::ServiceRegistry;
use super::reload::RunningParts;
use super::role::{RoleSender, RoleWatch};
use super::service::{DrainMode, VirtualService};
use super::status::StatusReader;
use super::supervisor::TaskSupervisor;
use super::sync::SyncStatusSlot;
use crate::forward::DrainReport;
use crate::panics::catch_panic;

/// The name of the reloads among the tasks.
const RELOAD_TASK: &str = "reload";

/// Runs the commands of a director. It ends after `Stop`, or when the last sender is dropped.
pub(super) struct Controller {
    commands: ControlReceiver,
    parts: RunningParts,
    /// A successor that has the sockets, and may serve or fail.
    successor: Option<oneshot::Receiver<SuccessorServes>>,
    /// Commands that wait until the successor serves or has failed.
    deferred: VecDeque<ControlCommand>,
    _monitor: AbortOnDropHandle<()>,
    _sampler: AbortOnDropHandle<()>,
    _health_notify: AbortOnDropHandle<()>,
}

/// The parts of a director that its handles read.
#[derive(Clone, Debug)]
pub(super) struct DirectorView {
    pub(super) registry: ServiceRegistry,
    pub(super) role: RoleWatch,
    pub(super) status: StatusReader,
    pub(super) admin_address: watch::Receiver<Option<SocketAddr>>,
    pub(super) has_successor: watch::Receiver<bool>,
}

/// The next step of the controller.
enum ControllerStep {
    Run(ControlCommand),
    /// The successor serves, or has failed (`false`).
    Succeeded(bool),
    /// No handle is left.
    End,
}

impl Controller {
    /// Returns a controller of a director without services, and the view for handles.
    pub(super) fn new(
        commands: ControlReceiver,
        control: WeakControlSender,
    ) -> (Self, DirectorView) {
        let (registry, supervisor) = (ServiceRegistry::new(), TaskSupervisor::default());
        supervisor.register(RELOAD_TASK);
        let (role, role_watch) = RoleSender::new();
        let (sync_status, reload_status) = (SyncStatusSlot::default(), ReloadStatusSlot::default());
        let announce_slot = AnnounceSlot::default();
        let (history, engines) = (HistoryReader::default(), EngineSet::default());
        let status = StatusReader::new(
            registry.clone(),
            role_watch.clone(),
            announce_slot.clone(),
            sync_status.clone(),
            reload_status.clone(),
            supervisor.clone(),
            history.clone(),
            engines.clone(),
        );
        let (admin_address, address) = watch::channel(None);
        let (has_successor, successor) = watch::channel(false);
        let view = DirectorView {
            registry: registry.clone(),
            role: role_watch.clone(),
            status: status.clone(),
            admin_address: address,
            has_successor: successor,
        };
        let (sampled, samples) = (registry.clone(), history.clone());
        let sampler =
            supervisor.spawn("history", move || run_sampler(sampled.clone(), samples.clone()));
        let monitor = registry.monitor().clone();
        let monitor = supervisor.spawn("health monitor", move || {
            let monitor = monitor.clone();
            // A runtime without what the monitor needs is logged by the monitor.
            async move {
                let _ = monitor.run().await;
            }
        });
        let notified = registry.clone();
        let health_notify =
            supervisor.spawn("health notify", move || run_health_notify(notified.clone()));
        let controller = Self {
            commands,
            successor: None,
            deferred: VecDeque::new(),
            _monitor: monitor,
            _sampler: sampler,
            _health_notify: health_notify,
            parts: RunningParts {
                pool: None,
                engines,
                ipvs_role: None,
                admin_context: AdminContext::new(registry.clone(), status, history),
                registry,
                supervisor,
                applied: AppliedConfig::default(),
                reload_status,
                draining: JoinSet::new(),
                admin: None,
                admin_address,
                vrrp: None,
                vrrp_retry: None,
                announce: None,
                announce_slot,
                role,
                sync: None,
                sync_status,
                role_watch,
                handover: None,
                control,
                has_successor,
            },
        };
        (controller, view)
    }

    /// Runs commands until the director ends.
    pub(super) async fn run(mut self) {
        loop {
            match self.next_step().await {
                ControllerStep::Run(ControlCommand::Reload {
                    config,
                    sockets,
                    predecessor,
                    reply,
                }) => {
                    let reload = self.parts.reload(*config, sockets, predecessor);
                    let result = catch_panic(reload).await;
                    let result = result.unwrap_or_else(|message| {
                        // The parts that run are whole: they go on, and the next reload tries again.
                        self.parts.supervisor.record_panic(RELOAD_TASK, &message);
                        Err(DirectorError::Panic { message })
                    });
                    self.parts.publish_reload(&result);
                    // The caller may have stopped waiting.
                    let _ = reply.send(result);
                }
                ControllerStep::Run(ControlCommand::RestartElection) => {
                    // Not beside a successor, which has the election.
                    if self.successor.is_none() {
                        self.parts.restart_failed_vrrp().await;
                    }
                }
                ControllerStep::Run(ControlCommand::HandOver { reply, outcome }) => {
                    if let Some(announce) = &self.parts.announce {
                        announce.pause(true);
                    }
                    self.parts.stop_vrrp().await;
                    self.successor = Some(outcome);
                    let _ = reply.send(self.parts.duplicate_sockets());
                }
                ControllerStep::Run(ControlCommand::Stop { timeout, mut reply }) => {
                    let report = self.stop(timeout, reply.closed()).await;
                    // Everything has ended before the caller continues.
                    drop(self);
                    let _ = reply.send(report);
                    return;
                }
                ControllerStep::Succeeded(true) => {
                    self.successor = None;
                    if let Some(announce) = self.parts.announce.take() {
                        announce.leave().await;
                    }
                }
                ControllerStep::Succeeded(false) => {
                    self.successor = None;
                    if let Some(announce) = &self.parts.announce {
                        announce.pause(false);
                    }
                    if self.parts.vrrp.is_none() {
                        self.parts.resume_vrrp();
                    }
                }
                ControllerStep::End => {
                    self.stop(Duration::ZERO, std::future::ready(())).await;
                    return;
                }
            }
        }
    }

    /// Waits for the next command that may run now.
    async fn next_step(&mut self) -> ControllerStep {
        loop {
            let command = match &mut self.successor {
                None => match self.deferred.pop_front() {
                    Some(command) => Some(command),
                    None => self.commands.recv().await,
                },
                Some(outcome) => tokio::select! {
                    outcome = outcome => return ControllerStep::Succeeded(outcome.is_ok()),
                    command = self.commands.recv() => match command {
                        // Nothing else changes while a successor starts.
                        Some(command @ (ControlCommand::Reload { .. } | ControlCommand::HandOver { .. })) => {
                            self.deferred.push_back(command);
                            continue;
                        }
                        command => command,
                    },
                },
            };
            return command.map_or(ControllerStep::End, ControllerStep::Run);
        }
    }

    /// Withdraws the announced addresses and hands the virtual addresses over, then drains all services. Connections that are left are cut
    /// after the timeout, or when `cancelled` is ready.
    async fn stop(
        &mut self,
        timeout: Duration,
        cancelled: impl Future<Output = ()>,
    ) -> DrainReport {
        let mut cancelled = pin!(cancelled);
        let announce = self.parts.announce.take();
        let is_cancelled = match &announce {
            Some(announce) if self.successor.is_none() => {
                announce.withdraw(cancelled.as_mut()).await
            }
            _ => false,
        };
        let timeout = if is_cancelled { Duration::ZERO } else { timeout };
        self.parts.stop_vrrp().await;
        let has_successor = *self.parts.has_successor.borrow();
        let services = self.parts.registry.services();
        let config = &self.parts.applied.config;
        let keeps_ipvs = config.ipvs().keep_at_stop;
        let keeps_packet = config.packet().keep_at_stop;
        let mode = |timeout| DrainMode { timeout, has_successor, keeps_ipvs, keeps_packet };
        services.iter().for_each(|service| service.drain(mode(timeout)));
        if has_successor || keeps_packet {
            // Not only when the last connection of another engine has ended: until then nobody would decide.
            self.parts.engines.stop_packet();
        }
        let report = tokio::select! {
            report = wait_drained(&services) => report,
            // It is not polled again when it was ready before.
            () = cancelled, if !is_cancelled => {
                services.iter().for_each(|service| service.drain(mode(Duration::ZERO)));
                wait_drained(&services).await
            }
        };
        if let Some(announce) = announce {
            match self.successor {
                None => announce.stop().await,
                Some(_) => announce.leave().await,
            }
        }
        // A handle of the director may stay, and with it the status, which reads the engine.
        self.parts.engines.stop_packet();
        self.parts.registry.monitor().shutdown();
        report
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.parts.registry.events().close();
    }
}

async fn wait_drained(services: &[Arc<VirtualService>]) -> DrainReport {
    let mut sum = DrainReport::default();
    for service in services {
        let report = service.wait_drained().await;
        sum.finished += report.finished;
        sum.cut += report.cut;
    }
    sum
}
