//! gRPC calls over tonic's channels, with session affinity by a metadata key: each session stays with
//! its server.
//!
//! ```text
//! cargo run --release --example tower_grpc
//! ```
//! The calls are those of gRPC's health protocol, so that the example needs no generated code.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use http::HeaderName;
use lvs::scheduler::Maglev;
use lvs::tower::{
    Balance, GrpcStatusClassifier, HeaderKey, LeasedBody, OnBodyEnd, grpc_error_response,
};
use lvs::{BackendSet, Balancer, Health, Spec};
use tokio::net::TcpListener;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::util::MapResult;
use tower::{BoxError, ServiceExt};

type Service = Balance<Channel, HeaderKey, OnBodyEnd<GrpcStatusClassifier>>;
type Body = LeasedBody<tonic::body::Body, Channel, GrpcStatusClassifier>;
type CallResult = Result<http::Response<Body>, BoxError>;
type Client = HealthClient<MapResult<Service, fn(CallResult) -> CallResult>>;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&*error),
    }
}

/// Prints an error with its causes.
fn report(error: &(dyn Error + 'static)) -> ExitCode {
    eprint!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

async fn run() -> Result<(), BoxError> {
    let set = BackendSet::new();
    for name in NAMES {
        let address = serve().await?;
        // The channel connects with its first call, and again after it has lost the connection.
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
        set.insert(Spec::new(name, channel))?;
    }
    let service = Balance::new(Balancer::new(&set, Maglev::new())?)
        .key(HeaderKey::new(HeaderName::from_static("x-session")))
        .classify(GrpcStatusClassifier)
        .until_body_end() // the gRPC status is in the trailers
        .wait_timeout(Duration::from_millis(100));
    // A call that finds no server answers UNAVAILABLE, as a server would.
    let answer: fn(CallResult) -> CallResult = grpc_error_response;
    let service = ServiceExt::<http::Request<tonic::body::Body>>::map_result(service, answer);
    let client = HealthClient::new(service);

    let before = homes(&set, &client).await?;
    println!("sessions by server: {}", summary(&before));
    assert_eq!(homes(&set, &client).await?, before, "each session stays with its server");

    set.set_health(&"beta".into(), Health::Down)?;
    let after = homes(&set, &client).await?;
    let moved = before.iter().filter(|(session, home)| after[*session] != **home).count();
    println!("beta is down, {moved} sessions have moved: {}", summary(&after));

    for name in NAMES {
        set.set_health(&name.into(), Health::Down)?;
    }
    let call = client.clone().check(HealthCheckRequest::default()).await;
    let status = call.err().ok_or("a call has found a server")?;
    assert_eq!(status.code(), Code::Unavailable);
    println!("all are down: {:?}, {}", status.code(), status.message());
    Ok(())
}

/// Returns the server of each session, by the servers' counters before and after its call.
async fn homes<S>(set: &BackendSet<S>, client: &Client) -> Result<BTreeMap<u32, String>, BoxError> {
    let mut homes = BTreeMap::new();
    let served =
        || set.snapshot().backends().iter().map(|server| server.outcomes().ok).collect::<Vec<_>>();
    for session in 0..60 {
        let before = served();
        let mut call = Request::new(HealthCheckRequest { service: String::new() });
        call.metadata_mut().insert("x-session", session.to_string().parse()?);
        client.clone().check(call).await?;
        let after = served();
        let home = before.iter().zip(&after).position(|(before, after)| before != after);
        let home = home.ok_or("no server has counted the call")?;
        homes.insert(session, set.snapshot().backends()[home].id().to_string());
    }
    Ok(homes)
}

fn summary(homes: &BTreeMap<u32, String>) -> String {
    let count = |name: &str| homes.values().filter(|home| *home == name).count();
    NAMES.map(|name| format!("{name} {}", count(name))).join(", ")
}

/// Starts a server on a free port and returns its address.
async fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (_, health) = tonic_health::server::health_reporter();
    let serving = Server::builder().add_service(health);
    tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address)
}
