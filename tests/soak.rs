//! Memory stays flat while connections, servers and configurations come and go.
//!
//! ```text
//! LVS_SOAK_SECONDS=3600 cargo test --release --test soak -- --nocapture
//! ```
//! Without the variable it takes some seconds; in CI, half a minute. It counts the bytes that are
//! allocated and not freed while the director is idle, not what the system holds.
#![cfg(all(feature = "director", target_os = "linux"))]
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig, RealServer, ServerChange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// An allocator that counts allocated bytes.
struct Counting;

static HELD: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call goes to `System` unchanged, which fulfils the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: `pointer` came from `System` with this `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that may be added: the traffic history of five minutes, and tables that grow to their size.
const ALLOWED: i64 = 1 << 20;

async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A client that has gone needs no answer.
            let _ = stream.write_all(b"x").await;
        }
    });
    address
}

fn read(text: &str) -> DirectorConfig {
    DirectorConfig::parse(text).expect("sound")
}

/// One round of connections, edits of servers, and every fifth time a reload.
async fn churn(director: &Director, text: &str, turn: u64) -> u64 {
    let status = director.status();
    let listen: SocketAddr = status.services[0].listen[0].parse().expect("an address");
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..50 {
        clients.spawn(async move { TcpStream::connect(listen).await?.read_u8().await });
    }
    // A server that is new, and is removed again.
    let [_, a, b, c, ..] = turn.to_le_bytes();
    let new = SocketAddr::from(([127, 1 + a % 100, b, c], 1 + (turn % 60_000) as u16));
    let mut server = RealServer::new(new);
    server.weight = 0;
    director.add_server("web", server).expect("the server is new");
    director
        .change_server("web", &new.to_string(), ServerChange::new().with_weight(0))
        .expect("the server exists");
    director.remove_server("web", &new.to_string()).expect("the server exists");
    if turn.is_multiple_of(5) {
        let kinds = [
            "workers = 1",
            "persistence = { timeout = \"1s\" }",
            "health = { type = \"tcp\", interval = \"100ms\" }",
            "tcp = { max_connections = 500 }",
        ];
        let kind = kinds[(turn / 5 % 4) as usize];
        let other = text.replace("scheduler", &format!("{kind}\nscheduler"));
        director.reload(read(&other)).await.expect("sound");
    }
    let mut served = 0;
    while let Some(answer) = clients.join_next().await {
        answer.expect("no panic").expect("every connection is served");
        served += 1;
    }
    served
}

/// Returns the allocated bytes when no connection is open.
async fn held(director: &Director) -> i64 {
    for _ in 0..1000 {
        if director.status().services[0].active == 0 {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    // Time for workers to free what their last connections held.
    sleep(Duration::from_millis(300)).await;
    HELD.load(Ordering::Relaxed)
}

#[tokio::test]
async fn memory_stays_flat() {
    let asked =
        std::env::var("LVS_SOAK_SECONDS").ok().map(|seconds| seconds.parse().expect("seconds"));
    let seconds = asked.unwrap_or(if std::env::var_os("CI").is_some() { 30 } else { 6 });
    let mut text =
        "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nscheduler = \"wlc\"\n".to_owned();
    for _ in 0..2 {
        text += &format!("[[service.server]]\naddress = \"{}\"\n", server().await);
    }
    let director = Director::start(read(&text)).await.expect("the director starts");
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut turn, mut connections, mut first) = (0, 0, None);
    let mut shown = Instant::now();
    while Instant::now() < end || turn < 600 {
        turn += 1;
        connections += churn(&director, &text, turn).await;
        // By then bounded tables are full: overrides of 256 removed servers are kept.
        if turn == 400 {
            first = Some(held(&director).await);
        }
        if shown + Duration::from_secs(60) < Instant::now() {
            shown = Instant::now();
            println!("{turn} turns, {connections} connections, {} bytes", held(&director).await);
        }
    }
    let (first, last) = (first.expect("so many turns"), held(&director).await);
    println!(
        "{seconds} s, {connections} connections, {turn} servers added and removed, {} reloads: \
         {first} bytes held at first, {last} at last",
        turn / 5
    );
    assert!(last - first < ALLOWED, "{first} bytes grew to {last}");
    director.stop(Duration::ZERO).await;
}
