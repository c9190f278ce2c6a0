//! The DNS check, against BIND's named and against servers that misbehave.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use lvs::health::{CheckFailure, CheckFailureKind, CheckReport, DnsCheck};

use crate::loopback::own_address;
use crate::udp::Service;
use crate::world::{
    Folder, GARBAGE, LONG, Script, Server, Stage, assert_fails, copy_program, program, refusing,
    run, run_out_of_time,
};

fn query(name: &str, record_type: &str) -> DnsCheck {
    DnsCheck::query(name, record_type).expect("a query")
}

async fn check(check: &DnsCheck, address: SocketAddr) -> Result<CheckReport, CheckFailure> {
    run(check, address, LONG).await
}

// --- a real server -----------------------------------------------------------------------------

/// Starts a name server for `example.test`; `None` if `named` is not installed.
async fn named() -> Option<(Server, Folder, SocketAddr)> {
    let installed = program("named", "bind9")?;
    let folder = Folder::new();
    let path = folder.path().display();
    // A copy: AppArmor's rules for the installed program do not let it read the test's folder.
    let binary = folder.path().join("named");
    copy_program(&installed, &binary);
    let mut zone = String::from(
        "$TTL 60\n\
         @ SOA ns hostmaster 1 60 60 60 60\n\
         @ NS ns\n\
         ns A 127.0.0.1\n\
         www A 192.0.2.1\n\
         www A 192.0.2.2\n\
         www AAAA 2001:db8::1\n\
         alias CNAME www\n\
         @ MX 10 mx.example.test.\n",
    );
    for line in 0..40 {
        writeln!(zone, "long TXT \"{line} {}\"", "x".repeat(200)).expect("a string");
    }
    fs::write(folder.path().join("zone"), zone).expect("written");
    // named only listens at the loopback interface's own address.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = free.expect("loopback");
    let (ip, port) = (address.ip(), address.port());
    let config = format!(
        "options {{ directory \"{path}\"; pid-file none; session-keyfile none; \
         lock-file none; listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; \
         recursion no; dnssec-validation no; notify no; }};\n\
         controls {{ }};\n\
         zone \"example.test\" {{ type primary; file \"zone\"; }};\n",
    );
    let file = folder.path().join("named.conf");
    fs::write(&file, config).expect("written");
    let mut command = Command::new(&binary);
    command.arg("-g").arg("-n1").arg("-c").arg(&file);
    let mut server = Server::spawn(&mut command, &folder);
    server.listens_at(address).await;
    let _ = server.answers(&query("example.test", "SOA"), address).await;
    Some((server, folder, address))
}

#[tokio::test]
async fn named_answers() {
    let Some((server, _folder, address)) = named().await else { return };
    let www = query("www.example.test", "a");
    assert!(check(&www, address).await.is_ok());
    let both = www.clone().expect_address([192, 0, 2, 2].into());
    let both = both.expect_record("192.0.2.1").expect("an address");
    assert!(check(&both, address).await.is_ok());
    let other = both.expect_address([192, 0, 2, 3].into());
    assert_fails(check(&other, address).await, CheckFailureKind::Mismatch, "192.0.2.3");

    let alias =
        query("ALIAS.example.test.", "AAAA").expect_address("2001:db8::1".parse().expect("IPv6"));
    assert!(check(&alias, address).await.is_ok());
    let mail = query("example.test", "MX").expect_record("10 MX.example.test").expect("data");
    assert!(check(&mail, address).await.is_ok());

    // 8 KB of text: over TCP.
    let last = format!("\"39 {}\"", "x".repeat(200));
    let long = query("long.example.test", "TXT").expect_record(&last).expect("data");
    assert!(check(&long, address).await.is_ok());

    let unknown = query("nobody.example.test", "A");
    assert_fails(check(&unknown, address).await, CheckFailureKind::Mismatch, "response code 3");
    assert!(check(&unknown.accept_codes([0, 3]), address).await.is_ok());
    // The server only serves its own zone.
    assert_fails(
        check(&DnsCheck::new(), address).await,
        CheckFailureKind::Mismatch,
        "response code 5",
    );

    server.freeze();
    let failure = run_out_of_time(&www, address, "waiting for the answer").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "waiting for the answer");
}

// --- servers that misbehave ---------------------------------------------------------------------

const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;

/// Returns the query as an answer without records, with a changed header.
fn answer(request: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut answer = request.to_vec();
    answer[2] |= RESPONSE;
    change(&mut answer);
    answer
}

async fn server(answers: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Service {
    Service::at(own_address(), answers).await
}

/// Answers over UDP that the answer is truncated; the script answers over TCP.
async fn truncating(stage: &Stage) -> Service {
    Service::at(stage.address, |request| vec![answer(request, |answer| answer[2] |= TRUNCATED)])
        .await
}

#[tokio::test]
async fn a_silent_server_times_out_and_a_closed_port_is_refused() {
    let question = DnsCheck::new();
    let silent = server(|_| vec![]).await;
    let failure = run_out_of_time(&question, silent.address, "waiting for the answer").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "waiting for the answer");
    assert_fails(check(&question, refusing()).await, CheckFailureKind::Refused, "refused");
}

#[tokio::test]
async fn garbage_is_a_protocol_failure() {
    for garbage in [GARBAGE.to_vec(), vec![], vec![0xff; 3000]] {
        let server = server(move |_| vec![garbage.clone()]).await;
        let answer = check(&DnsCheck::new(), server.address).await;
        assert_fails(answer, CheckFailureKind::Protocol, "not a DNS message");
    }
    let server = server(|_| vec![vec![0; 5000]]).await;
    let answer = check(&DnsCheck::new(), server.address).await;
    assert_fails(answer, CheckFailureKind::TooLong, "5000 bytes");
}

#[tokio::test]
async fn the_answer_to_another_question_is_ignored() {
    let wrong_id = |request: &[u8]| answer(request, |answer| answer[0] ^= 1);
    let patient = server(move |request| {
        let other = asked_for_ns(request);
        vec![request.to_vec(), wrong_id(request), other, answer(request, |_| {})]
    })
    .await;
    assert!(check(&DnsCheck::new(), patient.address).await.is_ok());

    let forger = server(move |request| vec![wrong_id(request)]).await;
    let stage = "waiting for an answer with the identifier of the query";
    let failure = run_out_of_time(&DnsCheck::new(), forger.address, stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);
    let mirror = server(|request| vec![request.to_vec()]).await;
    let stage = "waiting for an answer: received a query";
    let failure = run_out_of_time(&DnsCheck::new(), mirror.address, stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);
}

/// The type of the question follows the name of the root, one byte, in the bytes 13 and 14.
fn asked_for_ns(request: &[u8]) -> Vec<u8> {
    answer(request, |answer| answer[14] = 2)
}

#[tokio::test]
async fn response_codes_are_in_the_reason() {
    let failing = server(|request| vec![answer(request, |answer| answer[3] |= 2)]).await;
    let failed = check(&DnsCheck::new(), failing.address).await;
    assert_fails(
        failed,
        CheckFailureKind::Mismatch,
        "response code 2 (Server Failure), expected 0",
    );
    assert!(check(&DnsCheck::new().accept_codes([2]), failing.address).await.is_ok());
}

#[tokio::test]
async fn a_server_misbehaves_over_tcp() {
    let question = DnsCheck::new();
    // The question over TCP ends in its type and class: SOA, IN.
    let asked = || Script::new().receives([0, 6, 0, 1]);
    let stage = "waiting for the answer over TCP";

    let stalls = asked().stalls().await;
    let _udp = truncating(&stalls).await;
    let failure = run_out_of_time(&question, stalls.address, stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);

    let trickles = asked().trickles([0]).await;
    let _udp = truncating(&trickles).await;
    // One byte of the length a second, and then an answer of no bytes.
    let answer = {
        let failure = run_out_of_time(&question, trickles.address, stage).await;
        Err(failure)
    };
    assert_fails(answer, CheckFailureKind::Protocol, "not a DNS message");

    let slow = asked().sends([0x10, 0x00]).trickles([0]).await;
    let _udp = truncating(&slow).await;
    let failure = run_out_of_time(&question, slow.address, stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);

    let closes = asked().sends([0, 9, 1]).closes().await;
    let _udp = truncating(&closes).await;
    assert_fails(check(&question, closes.address).await, CheckFailureKind::Closed, stage);

    let resets = asked().resets().await;
    let _udp = truncating(&resets).await;
    assert_fails(check(&question, resets.address).await, CheckFailureKind::Reset, stage);

    let endless = asked().never_ends([0xff]).await;
    let _udp = truncating(&endless).await;
    let answer = check(&question, endless.address).await;
    assert_fails(answer, CheckFailureKind::Protocol, "not a DNS message");
    assert!(endless.bytes_sent() < 8_000_000, "bounded by the 16-bit length of a message over TCP");
}

#[tokio::test]
async fn a_server_without_tcp_refuses() {
    let udp = server(|request| vec![answer(request, |answer| answer[2] |= TRUNCATED)]).await;
    let answer = check(&DnsCheck::new(), udp.address).await;
    assert_fails(answer, CheckFailureKind::Refused, "connecting");
}
