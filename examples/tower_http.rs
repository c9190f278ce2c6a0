//! A client stack of hyper and tower over three web servers, one of which is slow and one of which
//! fails every fourth request.
//!
//! ```text
//! cargo run --release --example tower_http
//! cargo run --release --example tower_http -- --scheduler peak_ewma
//! ```

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
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

/// Sends requests through a balancer and prints how many each server got.
#[derive(Debug, Parser)]
struct Args {
    /// The scheduler: `p2c`, `peak_ewma`, `wlc`, ...
    #[arg(long, value_name = "SCHEDULER", default_value = "p2c")]
    scheduler: String,
    /// Number of requests.
    #[arg(long, default_value_t = 1000)]
    requests: u32,
}

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
    let args = Args::parse();
    let set = BackendSet::new();
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    for (name, millis, fails) in [("quick", 2, false), ("slow", 20, false), ("flaky", 2, true)] {
        let address = serve(Duration::from_millis(millis), fails).await?;
        // Layers for one server go around its instance, layers for all servers around the balancer.
        let instance = ServiceBuilder::new()
            .map_request(move |request| with_server(address, request))
            .timeout(Duration::from_secs(1))
            .service(client.clone());
        set.insert(Spec::new(name, instance))?;
    }
    let balancer = Balancer::new(&set, SchedulerRegistry::default().parse(&args.scheduler)?)?;
    let service = Balance::new(balancer)
        .classify(HttpStatusClassifier) // a 5xx status is a failure
        .retry(Retry::safe_methods()) // a failed GET is sent to another server
        .until_body_end(); // a server is loaded until the last byte of its answer

    let (mut requests, mut failed) = (JoinSet::new(), 0);
    for _ in 0..args.requests {
        let service = service.clone();
        requests.spawn(async move {
            let response = service.oneshot(Request::new(Empty::new())).await?;
            let status = response.status();
            response.into_body().collect().await?;
            Ok::<_, BoxError>(status)
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while let Some(result) = requests.join_next().await {
        failed += u32::from(result?.map_or(true, |status| status != StatusCode::OK));
    }

    println!("{} requests with scheduler {}, {failed} failed", args.requests, args.scheduler);
    println!("server      ok  failed");
    for backend in set.snapshot().backends() {
        let outcomes = backend.outcomes();
        println!("{:8} {:5} {:7}", backend.id().as_str(), outcomes.ok, outcomes.failures());
    }
    Ok(())
}

/// Sets the server of a request's URI.
fn with_server(address: SocketAddr, mut request: Request<Empty<Bytes>>) -> Request<Empty<Bytes>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query(path);
    // An address and the path of a valid URI always give a URI.
    *request.uri_mut() = uri.build().unwrap_or_default();
    request
}

/// Starts a server on a free port and returns its address; with `fails`, every fourth request fails.
async fn serve(latency: Duration, fails: bool) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let count = Arc::new(AtomicU32::new(0));
    let answer = async move || {
        tokio::time::sleep(latency).await;
        match fails && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
            true => (StatusCode::SERVICE_UNAVAILABLE, "failed\n"),
            false => (StatusCode::OK, "ok\n"),
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    Ok(address)
}
