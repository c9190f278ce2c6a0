//! `lvs packet`: what the kernel has of the packet engine, without a director.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;
use lvs::engine::EngineProtocol;
use lvs::packet::{PacketKernelState, PacketSettings, PacketStatistics, detach};

use crate::error::CliError;
use crate::output;

/// What is shown or removed.
#[derive(Debug, clap::Args)]
pub(crate) struct PacketArgs {
    #[arg(value_enum)]
    action: PacketAction,
    /// The folder for what outlives the director: `pin_folder` in its configuration. Default: that of this
    /// network namespace.
    #[arg(long, value_name = "DIRECTORY")]
    pin_folder: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum PacketAction {
    /// Prints the devices, services, servers and counters.
    Show,
    /// Removes the program from all devices, and the flows with it.
    Detach,
}

pub(crate) fn run(args: PacketArgs) -> Result<(), CliError> {
    let folder = args.pin_folder.unwrap_or_else(|| PacketSettings::default().pin_folder);
    let Some(state) = PacketKernelState::read(&folder)? else {
        return output::print(format!("there is no packet engine in {}\n", folder.display()))
            .map_err(CliError::Output);
    };
    let text = match args.action {
        PacketAction::Show => describe(&state),
        PacketAction::Detach => {
            detach(&folder)?;
            format!("removed, with {} flows\n", state.flows)
        }
    };
    output::print(text).map_err(CliError::Output)
}

fn describe(state: &PacketKernelState) -> String {
    let mut text = format!("devices: {}\n", state.devices.join(", "));
    // Writing to a string does not fail.
    if !state.xdp_devices.is_empty() {
        let _ = writeln!(text, "at XDP: {}", state.xdp_devices.join(", "));
    }
    let _ = writeln!(text, "flows: {}", state.flows);
    for service in &state.services {
        let protocol = match service.protocol {
            EngineProtocol::Tcp => "tcp",
            EngineProtocol::Udp => "udp",
            _ => "other",
        };
        let note = if service.is_claimed { "" } else { " (claimed by no director)" };
        let _ = writeln!(text, "service {protocol} {}{note}", service.address);
        for server in &service.servers {
            let state = if server.is_available { "available" } else { "not available" };
            let (address, method) = (server.address, server.method);
            let (flows, bytes_in) = (server.flows, server.bytes_in);
            let _ = write!(
                text,
                "  {address} by {method}: {state}, {flows} flows, {bytes_in} bytes in"
            );
            let bytes_out = server.bytes_out.map(|bytes| format!(", {bytes} bytes out"));
            let _ = writeln!(text, "{}", bytes_out.unwrap_or_default());
        }
    }
    for (name, count) in PacketStatistics::NAMES.iter().zip(state.statistics.values()) {
        if count > 0 {
            let _ = writeln!(text, "{}: {count}", name.replace('_', " "));
        }
    }
    text
}
