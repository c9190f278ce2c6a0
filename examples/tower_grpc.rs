//! gRPC calls over tonic's channels, sticky by metadata: each session stays with its server.
//!
//! ```text
//! cargo run --release --example tower_grpc
//! ```
//! The calls are those of gRPC's health protocol, which needs no generated code.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use http::HeaderName;
use lvs::scheduler::Maglev;
use lvs::tower::{Balance, GrpcStatusClassifier, HeaderKey, OnBodyEnd};
use lvs::{BackendSet, Balancer, Health, Spec};
use tokio::net::TcpListener;
use tonic::Request;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::BoxError;

type Client = HealthClient<Balance<Channel, HeaderKey, OnBodyEnd<GrpcStatusClassifier>>>;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let set = BackendSet::new();
    for name in NAMES {
        let address = serve().await?;
        // Connects when it is first used, and again when the connection is lost.
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
        set.insert(Spec::new(name, channel))?;
    }
    let sticky = Balance::new(Balancer::new(&set, Maglev::new())?)
        .key(HeaderKey::new(HeaderName::from_static("x-session")))
        .classify(GrpcStatusClassifier)
        .until_body_end(); // gRPC says how it went in the trailers
    let client = HealthClient::new(sticky);

    let before = homes(&set, &client).await?;
    println!("sessions of {}", summary(&before));
    assert_eq!(homes(&set, &client).await?, before, "each stays with its server");

    set.set_health(&"beta".into(), Health::Down)?;
    let after = homes(&set, &client).await?;
    let moved = before.iter().filter(|(session, home)| after[*session] != **home).count();
    println!("beta goes down, {moved} sessions move: {}", summary(&after));
    Ok(())
}

/// Which server each session's call was served by, as the servers' counters say.
async fn homes<S>(set: &BackendSet<S>, client: &Client) -> Result<BTreeMap<u32, String>, BoxError> {
    let mut homes = BTreeMap::new();
    let served = || set.snapshot().backends().iter().map(|it| it.outcomes().ok).collect::<Vec<_>>();
    for session in 0..60 {
        let before = served();
        let mut call = Request::new(HealthCheckRequest { service: String::new() });
        call.metadata_mut().insert("x-session", session.to_string().parse()?);
        client.clone().check(call).await?;
        let after = served();
        let home = before.iter().zip(&after).position(|(before, after)| before != after);
        let home = home.ok_or("nobody was called")?;
        homes.insert(session, set.snapshot().backends()[home].id().to_string());
    }
    Ok(homes)
}

fn summary(homes: &BTreeMap<u32, String>) -> String {
    let count = |name: &str| homes.values().filter(|home| *home == name).count();
    NAMES.map(|name| format!("{name} {}", count(name))).join(", ")
}

/// Starts a server on a free port.
async fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (_, health) = tonic_health::server::health_reporter();
    let serving = Server::builder().add_service(health);
    tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address)
}
