//! The packet engine over a balancer, without a director: a program in the kernel carries the packets of a
//! virtual address to servers, and `p2c` chooses a server for each connection.
//!
//! ```text
//! sudo ip address add 192.0.2.1/32 dev lo
//! cargo build --example packet_engine --features packet
//! sudo target/debug/examples/packet_engine 192.0.2.1:80 10.2.0.2:8080 10.3.0.2:8080
//! ```
//! The servers' route to clients leads through this machine, which forwards packets (`net.ipv4.ip_forward = 1`).
//! It needs `CAP_BPF`, `CAP_NET_ADMIN`, a BPF file system and `/dev/net/tun`; see `lvs::packet`.

use std::error::Error;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use clap::Parser;
use lvs::engine::{Engine as _, EngineAddress, EngineFlowCallback, EngineProtocol, EngineRequest};
use lvs::packet::{PacketEngine, PacketSettings};
use lvs::scheduler::PowerOfTwoChoices;
use lvs::{BackendSet, Balancer};

/// Carries TCP connections to servers in the kernel, and prints a line for each one that has ended.
#[derive(Debug, Parser)]
struct Args {
    /// The virtual address, which this machine has.
    listen: SocketAddr,
    /// The servers.
    #[arg(required = true)]
    servers: Vec<SocketAddr>,
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let set = BackendSet::<SocketAddr>::new();
    for server in &args.servers {
        set.insert(*server)?;
    }
    let balancer = Balancer::new(&set, PowerOfTwoChoices::new())?;

    let engine = PacketEngine::start(PacketSettings::default())?;
    let address = EngineAddress::Socket { protocol: EngineProtocol::Tcp, address: args.listen };
    let mut request = EngineRequest::new("web", address, balancer, "p2c");
    request.on_flow_end = Some(EngineFlowCallback::new(|record| println!("{record}")));
    let service = engine.claim(request)?.begin()?;
    eprintln!("{} is served by the program at {}", args.listen, engine.devices().join(", "));

    // A change of the set is followed at once; here a health check or an operator would make it.
    loop {
        thread::sleep(Duration::from_secs(10));
        let counters = service.counters();
        eprintln!(
            "{} connections, {} upcalls, {} decided without the scheduler",
            counters.connections,
            engine.statistics().upcalls,
            engine.statistics().table_decisions
        );
    }
}
