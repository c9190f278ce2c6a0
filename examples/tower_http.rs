//! A client stack of hyper and tower over three web servers, of which one is slow and one fails now
//! and then.
//!
//! ```text
//! cargo run --release --example tower_http
//! cargo run --release --example tower_http -- --scheduler peak_ewma
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use clap::Parser;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lvs::scheduler::SchedulerRegistry;
use lvs::tower::{Balance, HttpStatusClassifier, Retry};
use lvs::{BackendSet, Balancer, Spec};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt};

/// Sends requests through a balancer and shows where they went.
#[derive(Debug, Parser)]
struct Args {
    /// The scheduling rule: `p2c`, `peak_ewma`, `wlc`, ...
    #[arg(long, value_name = "RULE", default_value = "p2c")]
    scheduler: String,
    /// How many requests.
    #[arg(long, default_value_t = 1000)]
    requests: u32,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let set = BackendSet::new();
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    for (name, millis, fails) in [("quick", 2, false), ("slow", 20, false), ("flaky", 2, true)] {
        let address = serve(Duration::from_millis(millis), fails).await?;
        // What is particular to one server is around its instance, what is common around them all.
        let instance = ServiceBuilder::new()
            .map_request(move |request| to(address, request))
            .timeout(Duration::from_secs(1))
            .service(client.clone());
        set.insert(Spec::new(name, instance))?;
    }
    let balancer = Balancer::new(&set, SchedulerRegistry::default().parse(&args.scheduler)?)?;
    let service = Balance::new(balancer)
        .classify(HttpStatusClassifier) // 5xx is a failure
        .retry(Retry::safe_methods()) // and a GET goes elsewhere then
        .until_body_end(); // a server is busy until its last byte

    let (mut asking, mut failed) = (JoinSet::new(), 0);
    for _ in 0..args.requests {
        let service = service.clone();
        asking.spawn(async move {
            let response = service.oneshot(Request::new(Empty::new())).await?;
            let status = response.status();
            response.into_body().collect().await?;
            Ok::<_, BoxError>(status)
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while let Some(asked) = asking.join_next().await {
        failed += u32::from(asked?.map_or(true, |status| status != StatusCode::OK));
    }

    println!("{} requests by {}, {failed} failed", args.requests, args.scheduler);
    println!("server      ok  failed");
    for backend in set.snapshot().backends() {
        let outcomes = backend.outcomes();
        println!("{:8} {:5} {:7}", backend.id().as_str(), outcomes.ok, outcomes.failures());
    }
    Ok(())
}

/// The same request to one server.
fn to(address: SocketAddr, mut request: Request<Empty<Bytes>>) -> Request<Empty<Bytes>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query(path);
    // An address and what was a path are a URI.
    *request.uri_mut() = uri.build().unwrap_or_default();
    request
}

/// Starts a server on a free port; one that fails does so every fourth time.
async fn serve(takes: Duration, fails: bool) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let count = Arc::new(AtomicU32::new(0));
    let answer = async move || {
        tokio::time::sleep(takes).await;
        match fails && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
            true => (StatusCode::SERVICE_UNAVAILABLE, "not now\n"),
            false => (StatusCode::OK, "here you are\n"),
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    Ok(address)
}
