//! The admin server, with well-behaved and hostile clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lvs::director::Director;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{ANY, ask, config, listens, server, start};

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a request; returns the status code and the body.
pub(crate) async fn send(admin: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{head} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    raw(admin, request.as_bytes()).await
}

async fn raw(admin: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).await.expect("the admin server listens");
    stream.write_all(request).await.expect("the admin server reads the request");
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    // A request that is refused before it was read entirely ends with a reset after the answer.
    let _ = read.expect("the admin server answers");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or_else(|| panic!("{answer}")), body.to_owned())
}

async fn json(admin: SocketAddr, path: &str) -> Value {
    let (status, body) = send(admin, &format!("GET {path}"), "").await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

pub(crate) async fn with_admin(more: &str, text: &str) -> (Director, SocketAddr) {
    let director = start(&format!("[admin]\nlisten = \"127.0.0.1:0\"\n{more}{text}")).await;
    let admin = director.admin_address().expect("there");
    (director, admin)
}

#[tokio::test]
async fn each_call_has_its_effect() {
    let servers = [server(b'a').await, server(b'b').await, server(b'c').await];
    let text = config(ANY, &servers[..2])
        .replace("scheduler", "persistence = { timeout = \"5m\" }\nscheduler");
    let (director, admin) = with_admin("", &text).await;
    let listen = listens(&director);
    let [a, _, c] = servers;
    let path = |server: SocketAddr| format!("/api/v1/services/web/servers/{server}");

    let (code, _) = send(admin, &format!("PATCH {}", path(a)), r#"{"weight": 3}"#).await;
    assert_eq!(code, 204);
    let body =
        json!({ "address": c, "name": "new", "weight": 2, "max_connections": 9 }).to_string();
    let (code, _) = send(admin, "POST /api/v1/services/web/servers", &body).await;
    assert_eq!(code, 201);
    let (code, answer) = send(admin, "POST /api/v1/services/web/servers", &body).await;
    assert_eq!((code, answer.contains("already")), (409, true), "{answer}");
    let changes = json!({ a.to_string(): { "state": "drain" }, c.to_string(): { "weight": 5 } });
    let all = "PATCH /api/v1/services/web/servers";
    assert_eq!(send(admin, all, &changes.to_string()).await.0, 204);
    let service = json(admin, "/api/v1/services/web").await;
    let find = |service: &Value, address: SocketAddr| {
        let servers = service["servers"].as_array().expect("a list");
        servers
            .iter()
            .find(|server| server["address"] == address.to_string())
            .expect("there")
            .clone()
    };
    let (changed, added) = (find(&service, a), find(&service, c));
    assert_eq!((&changed["state"], &changed["weight"]), (&json!("draining"), &json!(3)));
    assert_eq!((&added["name"], &added["weight"]), (&json!("new"), &json!(5)));
    assert_eq!(added["max_connections"], 9);

    // A server has a name too, and limits are changed one by one; the log knows by whom.
    let named = "/api/v1/services/web/servers/new";
    let head = format!("PATCH {named}");
    for body in [r#"{"max_connections": 8, "tier": 1}"#, r#"{"resume_connections": 3}"#] {
        assert_eq!(send(admin, &head, body).await, (204, String::new()), "{body}");
    }
    let (code, answer) = send(admin, &head, r#"{"resume_connections": 10}"#).await;
    assert_eq!((code, answer.contains("is 10")), (422, true), "{answer}");
    let operator = format!("{named} HTTP/1.1\r\nLvs-Operator: ");
    let patch = |name: &str| {
        format!(
            "PATCH {operator}{name}\r\nHost: {admin}\r\nConnection: close\r\n\
             Content-Length: 13\r\n\r\n{{\"weight\": 6}}"
        )
    };
    assert_eq!(raw(admin, patch("alice").as_bytes()).await.0, 204);
    assert_eq!(raw(admin, patch(&"x".repeat(65)).as_bytes()).await.0, 400);
    let service = json(admin, "/api/v1/services/web").await;
    let limits = ["max_connections", "resume_connections", "tier", "weight"];
    assert_eq!(limits.map(|key| find(&service, c)[key].as_u64()), [8, 3, 1, 6].map(Some));
    let by = |server| find(&service, server)["changed"]["by"].as_str().map(str::to_owned);
    assert!(by(c).expect("a name").starts_with("alice at 127.0.0.1:"), "{service}");
    assert!(by(a).expect("an address").starts_with("the API client 127.0.0.1:"), "{service}");
    let overview = json(admin, "/api/v1/overview?search=NEW").await;
    assert_eq!(overview["servers"][0]["address"], c.to_string(), "{overview}");
    assert_eq!(overview["services"][0]["by_hand"], 2);
    assert_eq!(overview["services"][0]["servers"], json!({ "draining": 1, "eligible": 2 }));
    assert_eq!(json(admin, "/api/v1/overview").await["servers_found"], 2);

    // All changes or none.
    let changes = json!({ a.to_string(): { "state": "up" }, "10.0.0.9:1": { "weight": 5 } });
    let (code, answer) = send(admin, all, &changes.to_string()).await;
    assert_eq!((code, answer.contains("10.0.0.9:1")), (404, true), "{answer}");
    assert_eq!(
        director.status().services[0]
            .servers
            .iter()
            .filter(|server| server.state == "draining")
            .count(),
        1
    );

    ask(listen).await.expect("served");
    let clients = json(admin, "/api/v1/services/web/clients?limit=5").await;
    assert_eq!(clients[0]["network"], "127.0.0.1");
    assert_eq!(json(admin, "/api/v1/status").await["services"][0]["totals"]["accepted"], 1);
    assert_eq!(send(admin, "POST /api/v1/services/web/zero", "").await.0, 204);
    assert_eq!(json(admin, "/api/v1/status").await["services"][0]["totals"]["accepted"], 0);
    let (_, metrics) = send(admin, "GET /metrics", "").await;
    assert!(metrics.contains("lvs_service_accepted_total{service=\"web\"} 1"), "{metrics}");
    assert_eq!(send(admin, "POST /api/v1/zero", "").await.0, 204);

    let held = TcpStream::connect(listen).await.expect("served");
    let connections = "/api/v1/services/web/connections";
    // A connection is listed once a worker has accepted it.
    let mut carried = json!([]);
    for _ in 0..100 {
        carried = json(admin, connections).await.get(0).cloned().unwrap_or_default();
        if carried["client"] == held.local_addr().expect("bound").to_string() {
            break;
        }
    }
    assert_eq!(carried["client"], held.local_addr().expect("bound").to_string());
    assert_eq!(carried["local"], listen.to_string());
    assert_eq!(carried["server"], clients[0]["server"]);
    assert_eq!(json(admin, &format!("{connections}?limit=0")).await, json!([]));
    drop(held);

    assert_eq!(send(admin, &format!("DELETE {}", path(c)), "").await.0, 204);
    assert_eq!(send(admin, &format!("DELETE {}", path(c)), "").await.0, 404);
    assert_eq!(send(admin, "GET /api/v1/services/none", "").await.0, 404);
    assert_eq!(send(admin, "GET /none", "").await.0, 404);
    assert_eq!(send(admin, "GET /healthz", "").await, (200, "active\n".into()));
    assert_eq!(json(admin, "/api/v1/history").await["interval_ms"], 1000);

    // The newest first: the removal of the last server by this client.
    let events = json(admin, "/api/v1/events?limit=2").await;
    assert_eq!(events.as_array().expect("a list").len(), 2);
    let removed = format!("service web: server {c} was removed by the API client 127.0.0.1:");
    assert!(events[0]["text"].as_str().expect("text").starts_with(&removed), "{events}");
    assert_eq!((&events[0]["source"], &events[0]["alert"]), (&json!("operator"), &json!(false)));
    let removed = format!("service web: server {c} was removed");
    assert_eq!((&events[1]["source"], &events[1]["text"]), (&json!("health"), &json!(removed)));
    let events = json(admin, "/api/v1/events").await;
    let started = events.as_array().expect("a list").last().expect("a start");
    assert!(events.as_array().expect("a list").iter().any(|event| event["source"] == "reload"));
    assert!(started["at_ms"].as_u64().expect("a time") > 1_600_000_000_000, "{started}");
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn each_call_is_described() {
    let (director, admin) = with_admin("", &config(ANY, &[server(b'a').await])).await;
    let description = json(admin, "/api/v1/openapi.json").await;
    let mut calls = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        let path = path.replace("{service}", "web").replace("{server}", "10.0.0.1:1");
        for method in methods.as_object().expect("methods").keys() {
            let head = format!("{} {path}", method.to_uppercase());
            let (code, answer) = send(admin, &head, "{}").await;
            assert!(code != 405 && !answer.contains("no such page"), "{head}: {code} {answer}");
            calls += 1;
        }
    }
    assert_eq!(calls, 17);
    // The schemas have exactly the fields of the answers.
    let answer = json(admin, "/api/v1/services/web").await;
    let schemas = &description["components"]["schemas"];
    let overview = json(admin, "/api/v1/overview?search=127.0.0.1").await;
    for (schema, value) in [
        ("ServiceStatus", &answer),
        ("ServerStatus", &answer["servers"][0]),
        ("RecentEvent", &json(admin, "/api/v1/events").await[0]),
        ("DirectorStatus", &json(admin, "/api/v1/status").await),
        ("DirectorOverview", &overview),
        ("ServiceOverview", &overview["services"][0]),
        ("ServerSummary", &overview["servers"][0]),
        ("ServiceSeries", &json(admin, "/api/v1/services/web/history").await),
    ] {
        let known = schemas[schema]["properties"].as_object().expect("properties");
        let answer: Vec<_> = value.as_object().expect("an object").keys().collect();
        assert_eq!(answer, known.keys().collect::<Vec<_>>(), "{schema}");
    }
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn requests_without_permission_are_refused() {
    let text = config(ANY, &[server(b'a').await]);
    let (director, admin) = with_admin("token = \"0123456789abcdef\"\n", &text).await;
    let get = |token: &str| {
        let header =
            if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
        format!("GET /api/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n")
    };
    for (token, code) in [
        ("", 401),
        ("Bearer 0123456789abcdeX", 401),
        ("Bearer ", 401),
        ("Basic 0123456789abcdef", 401),
        ("Bearer 0123456789abcdef", 200),
    ] {
        assert_eq!(raw(admin, get(token).as_bytes()).await.0, code, "{token}");
    }
    assert_eq!(
        raw(admin, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.0,
        200
    );
    director.stop(Duration::ZERO).await;

    // Without a token, programs of this machine are allowed, and pages of other sites are not.
    let (director, admin) = with_admin("", &text).await;
    let foreign = "GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(admin, foreign.as_bytes()).await.0, 403);
    let post = |origin: &str| {
        format!(
            "POST /api/v1/zero HTTP/1.1\r\nHost: {admin}\r\nOrigin: {origin}\r\n\
             Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
    };
    assert_eq!(raw(admin, post("http://evil.example").as_bytes()).await.0, 403);
    assert_eq!(raw(admin, post("null").as_bytes()).await.0, 403);
    assert_eq!(raw(admin, post(&format!("http://{admin}")).as_bytes()).await.0, 204);
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn bad_requests_are_answered_and_nothing_changes() {
    let servers = [server(b'a').await];
    let (director, admin) = with_admin("", &config(ANY, &servers)).await;
    let one = format!("PATCH /api/v1/services/web/servers/{}", servers[0]);
    for (body, code) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        (r#"{"wieght": 1}"#, 400),
        (r#"{"weight": -1}"#, 400),
        (r#"{"state": "gone"}"#, 400),
        (r#"{"weight": 4294967295}"#, 422),
    ] {
        let (status, answer) = send(admin, &one, body).await;
        assert_eq!(status, code, "{body}: {answer}");
        assert!(answer.starts_with("{\"error\":\""), "{answer}");
    }
    let add = "POST /api/v1/services/web/servers";
    for body in [r#"{"address": "nowhere"}"#, r#"{"address": "10.0.0.1:1", "more": 1}"#, "[1]", "7"]
    {
        assert_eq!(send(admin, add, body).await.0, 400, "{body}");
    }
    let long = format!("[{}]", " ".repeat(2 << 20));
    assert_eq!(send(admin, add, &long).await.0, 413);
    let head = format!("GET / HTTP/1.1\r\nHost: {admin}\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(raw(admin, head.as_bytes()).await.0, 431);
    assert_eq!(raw(admin, b"hello\r\n\r\n").await.0, 400);
    let status = director.status();
    assert_eq!((status.services[0].servers.len(), status.services[0].servers[0].weight), (1, 1));
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn slow_and_many_clients_are_bounded() {
    let text = config(ANY, &[server(b'a').await]);
    let more = "max_connections = 4\nrequest_timeout = \"500ms\"\n";
    let (director, admin) = with_admin(more, &text).await;
    // A head that never ends, a body that never arrives, and clients that send nothing.
    let mut held = Vec::new();
    for beginning in [
        "GET / HTTP/1.1\r\nHost: x",
        "PATCH /api/v1/services/web/servers HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{",
        "",
        "",
    ] {
        let mut stream = TcpStream::connect(admin).await.expect("the admin server listens");
        stream.write_all(beginning.as_bytes()).await.expect("the admin server reads the request");
        held.push(stream);
    }
    assert_eq!(send(admin, "GET /healthz", "").await.0, 200);
    for mut stream in held {
        let mut answer = Vec::new();
        let end = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the admin server closes the connection after request_timeout");
        let _ = end;
    }
    assert_eq!(ask(listens(&director)).await.expect("served"), b'a');
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn clients_that_hold_connections_keep_nobody_out() {
    // No time runs out during the test.
    let text = config(ANY, &[server(b'a').await]);
    let (director, admin) = with_admin("request_timeout = \"1h\"\n", &text).await;
    let mut held = Vec::new();
    for number in 0..193 {
        let mut stream = TcpStream::connect(admin).await.expect("the admin server listens");
        // Nothing, a head that never ends, and a request whose answer is never read.
        let beginning = match number % 3 {
            0 => "",
            1 => "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1",
            _ => "GET /api/v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        };
        stream.write_all(beginning.as_bytes()).await.expect("the admin server accepts");
        held.push(stream);
    }
    assert_eq!(send(admin, "GET /healthz", "").await, (200, "active\n".into()));
    assert_eq!(send(admin, "GET /metrics", "").await.0, 200);
    // The first have made room.
    let mut byte = [0];
    let end = timeout(PATIENCE, held[0].read(&mut byte)).await.expect("the connection is closed");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    director.stop(Duration::ZERO).await;
}

/// Clients of this machine that connect on and on, and hold what they can, keep no probe from its answer.
#[tokio::test]
async fn probes_are_answered_while_connections_are_opened_without_end() {
    let text = config(ANY, &[server(b'a').await]);
    let (director, admin) = with_admin("request_timeout = \"1h\"\n", &text).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let opening = [(); 4].map(|()| {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            let mut held = std::collections::VecDeque::new();
            while !is_over.load(Ordering::Relaxed) {
                // A connection that was taken away is no fault here.
                held.extend(std::net::TcpStream::connect(admin));
                if held.len() > 100 {
                    held.pop_front();
                }
            }
        })
    });
    for _ in 0..100 {
        assert_eq!(send(admin, "GET /healthz", "").await, (200, "active\n".into()));
        assert_eq!(send(admin, "GET /metrics", "").await.0, 200);
    }
    is_over.store(true, Ordering::Relaxed);
    opening.into_iter().for_each(|thread| thread.join().expect("no panic"));
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let text = config(ANY, &[server(b'a').await]);
    let (director, admin) = with_admin("request_timeout = \"500ms\"\n", &text).await;
    let mut stream = TcpStream::connect(admin).await.expect("the admin server listens");
    let request = format!("GET /api/v1/openapi.json HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    // It asks on and on: the buffers of both sockets fill, and no answer can be written any more.
    let asks = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    timeout(PATIENCE, asks).await.expect("the connection is cut off");
    director.stop(Duration::ZERO).await;
}
