//! The gRPC check.

use std::net::SocketAddr;

use lvs::health::{CheckFailureKind, CheckReport, GrpcCheck};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::world::{
    GARBAGE, LONG, Script, assert_fails, free_address, refusing, run, run_out_of_time, until,
};

/// A server with the standard health service.
async fn serve() -> (SocketAddr, HealthReporter) {
    let address = free_address();
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(tonic::transport::Server::builder().add_service(health).serve(address));
    until(|| std::net::TcpStream::connect(address).is_ok()).await;
    (address, reporter)
}

#[tokio::test]
async fn a_service_is_up_while_its_status_is_serving() {
    let (address, reporter) = serve().await;
    assert_eq!(run(&GrpcCheck::new(""), address, LONG).await, Ok(CheckReport::up()));
    let check = GrpcCheck::new("shop.Orders").authority("shop.example.org").expect("a host");
    let answer = run(&check, address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "gRPC status 5 NOT_FOUND");
    reporter.set_service_status("shop.Orders", ServingStatus::Serving).await;
    assert_eq!(run(&check, address, LONG).await, Ok(CheckReport::up()));
    reporter.set_service_status("shop.Orders", ServingStatus::NotServing).await;
    assert_fails(run(&check, address, LONG).await, CheckFailureKind::Mismatch, "NOT_SERVING");
    let error = GrpcCheck::new("").authority("a b").expect_err("a space");
    assert_eq!(error.to_string(), "authority is \"a b\", must be a host with an optional port");
}

#[tokio::test]
async fn a_server_without_the_health_service_is_down() {
    let address = free_address();
    let server = tonic::transport::Server::builder().add_routes(Default::default());
    tokio::spawn(server.serve(address));
    until(|| std::net::TcpStream::connect(address).is_ok()).await;
    let answer = run(&GrpcCheck::new(""), address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "gRPC status 12 UNIMPLEMENTED");
}

#[tokio::test]
async fn a_server_of_another_protocol_fails_in_time() {
    let check = GrpcCheck::new("");
    assert_fails(run(&check, refusing(), LONG).await, CheckFailureKind::Refused, "connecting");
    for server in [Script::new().closes().await, Script::new().resets().await] {
        let failure = run(&check, server.address, LONG).await.expect_err("no gRPC");
        let kinds = [CheckFailureKind::Closed, CheckFailureKind::Reset];
        assert!(kinds.contains(&failure.kind()), "{failure}");
    }
    let garbage = Script::new().never_ends(GARBAGE).await;
    let failure = run(&check, garbage.address, LONG).await.expect_err("no gRPC");
    let kinds = [CheckFailureKind::Protocol, CheckFailureKind::Closed, CheckFailureKind::Reset];
    assert!(kinds.contains(&failure.kind()), "{failure}");
    assert!(garbage.bytes_sent() < 2 << 20, "{} bytes", garbage.bytes_sent());
    let stage = "waiting for the gRPC response";
    for server in
        [Script::new().stalls().await, Script::new().trickles([0, 0, 0, 4, 0, 0, 0, 0, 0]).await]
    {
        let failure = run_out_of_time(&check, server.address, stage).await;
        assert_fails(Err(failure), CheckFailureKind::Timeout, stage);
    }
}
