//! Runs the programs that a configuration names for changes of servers and quorums.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::registry::ServiceRegistry;
use crate::vrrp::NotifyCommand;

/// How long a program may run before it is killed.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(30);

/// Follows the health events, and runs the programs one after the other, in the order of the events.
/// It ends with the monitor.
pub(super) async fn run_health_notify(registry: ServiceRegistry) {
    let mut events = registry.health_events();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let Ok(service) = registry.find_service(&event.service) else { continue };
                for command in service.notify_commands(&event.kind) {
                    run(&event.service, command).await;
                }
            }
            Err(missed) => tracing::warn!("notify programs are too slow: {missed}"),
        }
    }
}

async fn run(service: &str, command: NotifyCommand) {
    let program = command.program();
    let result = spawn_blocking(move || command.run(&[], NOTIFY_TIMEOUT)).await;
    if let Err(reason) = result.unwrap_or_else(|error| Err(error.to_string())) {
        tracing::warn!("service {service}: notify program {program} failed: {reason}");
    }
}
