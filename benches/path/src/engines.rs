//! The processes with the engines of this crate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use lvs::engine::{Engine as _, EngineAddress, EngineProtocol, EngineRequest};
use lvs::forward::Forwarder;
use lvs::packet::{PacketEngine, PacketSettings, PacketStatistics, XdpMode};
use lvs::scheduler::{RoundRobin, Scheduler, WeightedLeastConnections};
use lvs::{BackendSet, Balancer};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, stdin};

use crate::spec::PacketMethod;

/// The packet engine is to be started with these settings.
#[derive(Args, Clone, Debug)]
pub(crate) struct PacketOrder {
    /// The folder for what the engine pins.
    pub(crate) pin_folder: PathBuf,
    pub(crate) listen: SocketAddr,
    #[arg(required = true)]
    pub(crate) servers: Vec<SocketAddr>,
    /// Ask the scheduler for each connection; without it a table decides.
    #[arg(long)]
    pub(crate) asks_scheduler: bool,
    /// Give packets to the other ends of pairs of devices.
    #[arg(long)]
    pub(crate) redirect_peer: bool,
    /// How packets reach the servers.
    #[arg(long, value_enum, default_value_t = PacketMethod::Nat)]
    pub(crate) method: PacketMethod,
    /// The flows that the table has room for.
    #[arg(long, default_value_t = 262_144)]
    pub(crate) flows: u32,
    /// Carry frames of known flows at XDP by these devices.
    #[arg(long)]
    pub(crate) xdp_device: Vec<String>,
}

/// What the process of a packet engine tells.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PacketReport {
    /// Connections that the scheduler decided.
    pub(crate) upcalls: u64,
    /// Connections that a table decided.
    pub(crate) table_decisions: u64,
    /// Packets of no flow, and flows that were not made or not reported.
    pub(crate) failures: u64,
    /// Connections that are open, as the scheduler's counters have them.
    pub(crate) active: u64,
    /// Octets of packets of IP to the servers, and to clients.
    pub(crate) octets_in: u64,
    pub(crate) octets_out: u64,
    /// Packets that were carried at XDP.
    pub(crate) at_xdp: u64,
}

impl PacketReport {
    /// Parses the line that [`serve_packets`] prints.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let fields: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        match fields.as_deref() {
            Ok(&[upcalls, table_decisions, failures, active, octets_in, octets_out, at_xdp]) => {
                Ok(Self {
                    upcalls,
                    table_decisions,
                    failures,
                    active,
                    octets_in,
                    octets_out,
                    at_xdp,
                })
            }
            _ => Err(anyhow!("the engine printed {line:?}")),
        }
    }
}

/// Forwards connections until stdin ends. Prints `ready`.
pub(crate) async fn serve_connections(listen: SocketAddr, servers: &[SocketAddr]) -> Result<()> {
    let (_set, balancer) = balancer(servers, RoundRobin::new())?;
    let forwarder = Forwarder::bind(listen, balancer)?.workers(1);
    let running = tokio::spawn(forwarder.run());
    println!("ready");
    let _ = stdin().read_to_end(&mut Vec::new()).await;
    running.abort();
    Ok(())
}

/// Carries packets until stdin ends. Prints `ready`, and for each line on stdin `report` and a
/// [`PacketReport`].
pub(crate) async fn serve_packets(order: &PacketOrder) -> Result<()> {
    let mut settings = PacketSettings::default();
    settings.pin_folder = order.pin_folder.clone();
    settings.flows = order.flows;
    settings.redirect_peer = order.redirect_peer;
    settings.xdp_devices = order.xdp_device.clone();
    // The devices are ends of pairs, which the engine leaves without native XDP.
    settings.xdp_mode = XdpMode::Generic;
    if !order.asks_scheduler {
        settings.decisions_per_second = 0;
    }
    // No flow is forgotten while it is measured.
    settings.closing_timeout = Duration::from_secs(3600);
    settings.tcp_timeout = Duration::from_secs(3600);
    let engine = PacketEngine::start(settings).map_err(with_causes)?;
    let (set, balancer) = balancer(&order.servers, WeightedLeastConnections::new())?;
    let address = EngineAddress::Socket { protocol: EngineProtocol::Tcp, address: order.listen };
    let request = EngineRequest::new("bench", address, balancer, "wlc");
    let snapshot = set.snapshot();
    let ids = snapshot.backends().iter().map(|backend| backend.id().clone());
    request.methods.replace(ids.map(|id| (id, order.method.into())).collect());
    let claim = engine.claim(request).map_err(with_causes)?;
    let service = claim.begin().map_err(with_causes)?;
    println!("ready");
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {
        let PacketStatistics {
            upcalls,
            table_decisions,
            refused_at_limit,
            refused_without_server,
            table_full,
            events_lost,
            without_flow,
            rewrite_failed,
            at_xdp,
            ..
        } = engine.statistics();
        let failures = refused_at_limit
            + refused_without_server
            + table_full
            + events_lost
            + without_flow
            + rewrite_failed;
        let snapshot = set.snapshot();
        let active = snapshot.backends().iter().map(|it| u64::from(it.load().active)).sum::<u64>();
        let counters = service.counters();
        let (octets_in, octets_out) =
            (counters.bytes_to_servers, counters.bytes_to_clients.unwrap_or(0));
        println!(
            "report {upcalls} {table_decisions} {failures} {active} {octets_in} {octets_out} {at_xdp}"
        );
    }
    drop(service);
    drop(engine);
    Ok(())
}

fn balancer(
    servers: &[SocketAddr],
    rule: impl Scheduler + 'static,
) -> Result<(BackendSet<SocketAddr>, Balancer<SocketAddr>)> {
    let set = BackendSet::new();
    set.edit(|edit| {
        for &server in servers {
            edit.insert(server)?;
        }
        Ok(())
    })?;
    ensure!(!servers.is_empty(), "no servers");
    let balancer = Balancer::new(&set, rule).context("no balancer")?;
    Ok((set, balancer))
}

/// The errors of an engine name what the machine lacks in their cause.
fn with_causes(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    anyhow!("{:#}", anyhow::Error::new(error))
}
