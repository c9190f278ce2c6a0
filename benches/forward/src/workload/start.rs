//! The start of the load's process.

use std::net::SocketAddr;

use anyhow::Result;
use clap::ValueEnum as _;

use super::order::Order;
use super::spec::Id;
use crate::process::Child;
use crate::running::{Running, Stage};

/// Starts the load's process on a subject.
pub(crate) fn start_load(
    stage: &Stage,
    running: &Running,
    workload: Id,
    change: impl FnOnce(&mut Order),
) -> Result<Child> {
    let targets = running.targets.clone();
    let mut order = Order { workload, targets, millis: 1000, amount: 0, is_quick: false };
    change(&mut order);
    let name =
        workload.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let mut arguments = vec!["load".to_owned(), name];
    arguments.extend(order.targets.iter().map(SocketAddr::to_string));
    arguments.push(format!("--millis={}", order.millis));
    arguments.push(format!("--amount={}", order.amount));
    if order.is_quick {
        arguments.push("--small".to_owned());
    }
    Child::start(&stage.folder, "load", Some(stage.cores.load), arguments)
}
