//! `lvs ctl announce`: shows the announced addresses, or sets the mode.

use hyper::Method;
use serde_json::{Value, json};

use crate::client::{AdminClient, json_text};
use crate::error::CliError;
use crate::output;

/// What an operator wants of the announcements.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Mode {
    /// Announces addresses by the health of their services.
    Normal,
    /// Announces addresses with `drain_metric`, so that routers use other directors.
    Drain,
    /// Withdraws the addresses.
    Withdraw,
}

/// Sets the mode.
pub(super) async fn set_mode(client: &AdminClient, mode: Mode) -> Result<(), CliError> {
    let mode = match mode {
        Mode::Normal => "normal",
        Mode::Drain => "drain",
        Mode::Withdraw => "withdraw",
    };
    let body = json!({ "mode": mode });
    client.send(Method::PATCH, "/announce", Some(body)).await.map(drop)
}

/// Prints a line for each address.
pub(super) async fn list_addresses(client: &AdminClient, json: bool) -> Result<(), CliError> {
    let status = client.get("/status").await?;
    let announce = &status["announce"];
    if json {
        return output::print(format!("{announce:#}\n")).map_err(CliError::Output);
    }
    if announce.is_null() {
        let text = "this director announces no addresses: its configuration has no [announce]\n";
        return output::print(text).map_err(CliError::Output);
    }
    let mut text = format!("mode {}\n", json_text(&announce["mode"]));
    text += &format!("{:<39} {:>11} {:>7}  Reason\n", "Address", "State", "Metric");
    for address in announce["addresses"].as_array().into_iter().flatten() {
        let metric = address["metric"].as_u64();
        text += &format!(
            "{:<39} {:>11} {:>7}  {}\n",
            json_text(&address["address"]),
            json_text(&address["state"]),
            metric.map_or_else(|| "-".to_owned(), |metric| metric.to_string()),
            reason(address),
        );
    }
    output::print(&text).map_err(CliError::Output)
}

fn reason(address: &Value) -> String {
    if let Some(failure) = address["failure"].as_str() {
        return failure.to_owned();
    }
    let reason = json_text(&address["reason"]).replace('_', " ");
    match address["recovers_in"].as_f64() {
        Some(left) => format!("{reason}, {left:.0} s left"),
        None => reason,
    }
}
