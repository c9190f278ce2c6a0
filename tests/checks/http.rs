//! The HTTP check.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use lvs::health::{CheckFailureKind, CheckReport, HttpCheck, HttpCheckError};

use crate::world::{
    Folder, GARBAGE, LONG, Script, Server, assert_fails, program, refusing, run, run_out_of_time,
};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";

fn check() -> HttpCheck {
    HttpCheck::get("/health").expect("a path")
}

fn reading() -> HttpCheck {
    check().body_matches("ready").expect("a pattern")
}

fn asked() -> Script {
    Script::new().receives("\r\n\r\n")
}

#[tokio::test]
async fn a_server_that_sends_too_little_times_out() {
    let stalls = asked().stalls().await;
    let failure = run_out_of_time(&check(), stalls.address, "waiting for the status line").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "waiting for the status line");
    let half = asked().sends("HTTP/1.1 2").stalls().await;
    let failure = run_out_of_time(&check(), half.address, "waiting for the status line").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "waiting for the status line");
    let trickles = asked().trickles("HTTP/1.1 200 OK\r\nx: y\r\n").await;
    let failure = run_out_of_time(&check(), trickles.address, "waiting for the status line").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "waiting for the status line");
    let body = asked().sends(format!("{HEAD}content-length: 999\r\n\r\nread")).trickles("x").await;
    let failure = run_out_of_time(&reading(), body.address, "reading the body").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "reading the body");
}

#[tokio::test]
async fn refused_reset_and_closed_connections_differ() {
    assert_fails(run(&check(), refusing(), LONG).await, CheckFailureKind::Refused, "connecting");
    let resets = asked().resets().await;
    let answer = run(&check(), resets.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Reset, "waiting for the status line");
    let closes = asked().closes().await;
    let answer = run(&check(), closes.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Closed, "waiting for the status line");
    let half = asked().sends(format!("{HEAD}content-length: 9\r\n\r\nread")).closes().await;
    let answer = run(&reading(), half.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Closed, "reading the body");
}

#[tokio::test]
async fn garbage_is_no_http() {
    let garbage = Script::new().never_ends(GARBAGE).await;
    assert_fails(
        run(&check(), garbage.address, LONG).await,
        CheckFailureKind::Protocol,
        "status line",
    );
    let chunks = format!("{HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n");
    let chunks = asked().sends(chunks).stalls().await;
    assert_fails(run(&reading(), chunks.address, LONG).await, CheckFailureKind::Protocol, "body");
}

#[tokio::test]
async fn an_answer_without_end_is_read_to_a_bound() {
    let header = asked().sends(HEAD).never_ends("x-header: and another one\r\n").await;
    assert_fails(
        run(&check(), header.address, LONG).await,
        CheckFailureKind::TooLong,
        "status line",
    );
    assert!(header.bytes_sent() < 2 << 20, "{} bytes", header.bytes_sent());
    let line = asked().never_ends("H").await;
    let failure = run(&check(), line.address, LONG).await.expect_err("no status line");
    assert!(
        matches!(failure.kind(), CheckFailureKind::TooLong | CheckFailureKind::Protocol),
        "{failure}"
    );

    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
    let body = asked().sends(&head).never_ends("4\r\nlong\r\n").await;
    let failure = run(&reading(), body.address, LONG).await;
    assert_fails(failure, CheckFailureKind::TooLong, "more than 65536 bytes");
    assert!(body.bytes_sent() < 4 << 20, "{} bytes", body.bytes_sent());
    // Without an expectation the body is not read.
    let body = asked().sends(&head).never_ends("4\r\nlong\r\n").await;
    assert_eq!(run(&check(), body.address, LONG).await, Ok(CheckReport::up()));
}

#[tokio::test]
async fn folded_and_many_headers_are_read() {
    let folded = "HTTP/1.1 200 OK\r\nx: a\r\n  b\r\n\tc\r\ncontent-length: 0\r\n\r\n";
    let server = asked().sends(folded).stalls().await;
    assert_eq!(run(&check(), server.address, LONG).await, Ok(CheckReport::up()));
    let many: String = (0..1500).map(|n| format!("a{n}: b\r\n")).collect();
    let server = asked().sends(format!("HTTP/1.1 200 OK\r\n{many}\r\n")).stalls().await;
    assert_eq!(run(&check(), server.address, LONG).await, Ok(CheckReport::up()));
    let many: String = (0..3000).map(|n| format!("a{n}: b\r\n")).collect();
    let server = asked().sends(format!("HTTP/1.1 200 OK\r\n{many}\r\n")).stalls().await;
    let failure = run(&check(), server.address, LONG).await;
    assert_fails(failure, CheckFailureKind::TooLong, "waiting for the status line");
}

#[tokio::test]
async fn status_and_body_must_be_as_expected() {
    let moved = asked()
        .sends("HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n")
        .stalls()
        .await;
    let answer = run(&check(), moved.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "status 302 Found, expected 200..=299");
    let check_of = check().accept_status(301..=302).accept_status(404..=404);
    assert_eq!(run(&check_of, moved.address, LONG).await, Ok(CheckReport::up()));

    let ready = asked().sends(format!("{HEAD}content-length: 5\r\n\r\nready")).stalls().await;
    assert_eq!(run(&reading(), ready.address, LONG).await, Ok(CheckReport::up()));
    let not = check().body_does_not_match("rea").expect("a pattern");
    assert_fails(run(&not, ready.address, LONG).await, CheckFailureKind::Mismatch, "matches rea");
    let digest = "5d41402abc4b2a76b9719d911017c592";
    let digest = check().body_digest(digest).expect("an MD5");
    assert_fails(
        run(&digest, ready.address, LONG).await,
        CheckFailureKind::Mismatch,
        "the MD5 of the body is",
    );
    let short = reading().body_limit(4);
    assert_fails(
        run(&short, ready.address, LONG).await,
        CheckFailureKind::TooLong,
        "more than 4 bytes",
    );
}

#[tokio::test]
async fn the_request_is_as_configured() {
    let (asked, heard) = tokio::sync::oneshot::channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.expect("a check");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        stream.write_all(b"HTTP/1.0 204 No Content\r\n\r\n").await.expect("open");
        asked.send(String::from_utf8(request).expect("text")).expect("the test waits");
    });
    let check = HttpCheck::new("HEAD", "/a?b=c").expect("sound");
    let check = check.header("Host", "www.example.org").expect("a header");
    let check = check.header("x-one", "1").expect("a header");
    assert_eq!(run(&check, address, LONG).await, Ok(CheckReport::up()));
    let request = heard.await.expect("a request was received");
    let mut lines: Vec<_> = request.lines().collect();
    lines.sort();
    assert_eq!(lines, ["", "HEAD /a?b=c HTTP/1.1", "host: www.example.org", "x-one: 1"]);
}

#[test]
fn invalid_settings_are_refused() {
    assert!(matches!(HttpCheck::get("health"), Err(HttpCheckError::Path { .. })));
    assert!(matches!(HttpCheck::get("/a b"), Err(HttpCheckError::Path { .. })));
    assert!(matches!(HttpCheck::new("G T", "/"), Err(HttpCheckError::Method { .. })));
    assert!(matches!(check().header("a b", "c"), Err(HttpCheckError::Header { .. })));
    assert!(matches!(check().header("a", "b\n"), Err(HttpCheckError::Header { .. })));
}

/// Starts nginx with a page, a redirect and an error page; `None` if nginx is not installed.
pub(crate) async fn nginx(
    address: SocketAddr,
    listen: &str,
    extra: &str,
) -> Option<(Server, Folder)> {
    let program = program("nginx", "nginx")?;
    let folder = Folder::new();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let config = format!(
        "daemon off; master_process off; pid {pid}; error_log stderr;\n\
         events {{ }}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp};\n\
           uwsgi_temp_path {tmp}; scgi_temp_path {tmp};\n\
           server {{\n\
             listen {address} {listen};\n\
             {extra}\n\
             location /health {{ return 200 'ready\\n'; }}\n\
             location /moved {{ return 301 /health; }}\n\
             location /broken {{ return 500; }}\n\
           }}\n\
         }}\n",
        pid = at("pid"),
        tmp = at("tmp"),
    );
    let extra_folder = at("");
    let config = config.replace("FOLDER", extra_folder.trim_end_matches('/'));
    fs::write(folder.path().join("nginx.conf"), config).expect("a file");
    let mut command = Command::new(program);
    command.args(["-e", "stderr", "-p", &at(""), "-c", &at("nginx.conf")]);
    Some((Server::spawn(&mut command, &folder), folder))
}

#[tokio::test]
async fn nginx_is_up_and_its_error_pages_are_not() {
    let address = crate::world::free_address();
    let Some((mut server, _folder)) = nginx(address, "", "").await else { return };
    server.listens_at(address).await;
    assert_eq!(run(&reading(), address, LONG).await, Ok(CheckReport::up()));
    let moved = HttpCheck::get("/moved").expect("a path");
    assert_fails(run(&moved, address, LONG).await, CheckFailureKind::Mismatch, "status 301");
    let broken = HttpCheck::get("/broken").expect("a path");
    assert_fails(run(&broken, address, LONG).await, CheckFailureKind::Mismatch, "status 500");
    server.freeze();
    let failure = run_out_of_time(&check(), address, "waiting for the status line").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "waiting for the status line");
    server.kill();
    assert_fails(run(&check(), address, LONG).await, CheckFailureKind::Refused, "connecting");
}

#[cfg(feature = "health-http2")]
#[tokio::test]
async fn nginx_answers_by_http2_too() {
    let address = crate::world::free_address();
    let Some((mut server, _folder)) = nginx(address, "http2", "").await else { return };
    server.listens_at(address).await;
    assert_eq!(run(&reading().http2(), address, LONG).await, Ok(CheckReport::up()));
    let broken = HttpCheck::get("/broken").expect("a path").http2();
    assert_fails(run(&broken, address, LONG).await, CheckFailureKind::Mismatch, "status 500");
    let stalls = Script::new().stalls().await;
    let failure =
        run_out_of_time(&check().http2(), stalls.address, "waiting for the status line").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "waiting for the status line");
    let garbage = Script::new().never_ends(GARBAGE).await;
    let failure = run(&check().http2(), garbage.address, LONG).await.expect_err("no HTTP/2");
    assert!(
        matches!(
            failure.kind(),
            CheckFailureKind::Protocol | CheckFailureKind::Closed | CheckFailureKind::Reset
        ),
        "{failure}"
    );
}
