//! Latency and failures of connections at a steady rate, while a director is reloaded, restarted, or
//! has hostile clients at its admin server.
//!
//! ```text
//! cargo bench --bench reload
//! cargo bench --bench reload -- --rate 5000 --seconds 30
//! ```
//! All on loopback and in this process: two servers, the director, and clients that open connections
//! by a clock, not when the last connection has ended. Each connection reads a byte. There is a reload
//! every 100 ms, each of another kind, and a restart once a second, in which a second director takes
//! the listeners over from the first. Of the hostile clients, 32 request the largest page without a
//! pause, and 96 hold connections with requests that never end, or send bodies that are too long.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use lvs::director::{Director, DirectorConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Reloads and restarts a director under load.
#[derive(Debug, Parser)]
struct Args {
    /// Connections per second.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Seconds of each phase: nothing, reloads, restarts.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Runs the hostile clients against the admin server at this address; the bench starts itself so.
    #[arg(long, hide = true)]
    visit: Option<SocketAddr>,
    /// Passed by `cargo bench`. Without it, as in `cargo test`, the run is short.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The results of the clients.
#[derive(Debug, Default)]
struct Seen {
    served: AtomicU64,
    failed: AtomicU64,
    /// The latency of each connection, in microseconds.
    took: Mutex<Vec<u64>>,
}

#[tokio::main]
async fn main() {
    let mut args = Args::parse();
    if let Some(admin) = args.visit {
        visit(admin).join_all().await;
        return;
    }
    if !args.bench {
        args.rate = args.rate.min(500);
        args.seconds = 1;
    }
    let servers = [server().await, server().await];
    let [listen, admin] = free();
    let handover = std::env::temp_dir().join(format!("lvs-reload-{}.sock", std::process::id()));
    let text = format!(
        "handover = {handover:?}\ndrain_timeout = \"5s\"\n[admin]\nlisten = \"{admin}\"\n\
         max_connections = 1000\n[[service]]\nname = \"web\"\n\
         listen = \"{listen}\"\nscheduler = \"wrr\"\n\
         [[service.server]]\naddress = \"{}\"\n[[service.server]]\naddress = \"{}\"\n",
        servers[0], servers[1]
    );
    let mut director = start(&text).await;
    println!("director,changes,rate_per_s,connections,failed,p50_ms,p99_ms,longest_ms");
    for what in ["undisturbed", "reloaded", "restarted", "admin_load", "undisturbed_again"] {
        // On a real system their own work is another machine's: here they have the lowest priority.
        let visitors = (what == "admin_load").then(|| {
            let program = std::env::current_exe().expect("this program");
            let mut command = Command::new("nice");
            command.args(["-n", "19"]).arg(program).arg("--visit").arg(admin.to_string());
            command.kill_on_drop(true).spawn().expect("`nice`")
        });
        let seen = Arc::<Seen>::default();
        let load = tokio::spawn(load(listen, args.rate, args.seconds, Arc::clone(&seen)));
        let mut changes = 0;
        let begun = Instant::now();
        while !load.is_finished() {
            match what {
                "reloaded" => {
                    let config = read(&variant(&text, changes));
                    director.reload(config).await.expect("sound");
                    changes += 1;
                    sleep(Duration::from_millis(100)).await;
                }
                "restarted" => {
                    let successor = start(&text).await;
                    director.wait_for_successor().await;
                    director.stop(Duration::from_secs(5)).await;
                    director = successor;
                    changes += 1;
                    sleep(Duration::from_secs(1)).await;
                }
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
        load.await.expect("no panic");
        drop(visitors);
        let took = (Instant::now() - begun).as_secs_f64();
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let (served, failed) = (read(&seen.served), read(&seen.failed));
        let rate = (served + failed) as f64 / took;
        let mut times = seen.took.lock().expect("no panic").clone();
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1e3;
        let (p50, p99, longest) = (at(0.5), at(0.99), at(1.0));
        let all = served + failed;
        println!("{what},{changes},{rate:.0},{all},{failed},{p50:.2},{p99:.2},{longest:.1}");
        assert!(failed == 0 || !args.bench, "{failed} failed: {:?}", director.status());
    }
    director.stop(Duration::from_secs(5)).await;
    let _ = std::fs::remove_file(handover);
}

/// Returns free ports. All are held until the last is found: a port that is closed may be given out
/// again.
fn free<const N: usize>() -> [SocketAddr; N] {
    let bind = |()| TcpListener::bind("127.0.0.1:0").expect("loopback");
    [(); N].map(bind).map(|listener| listener.local_addr().expect("bound"))
}

/// Starts hostile clients of the admin server, which never end.
fn visit(admin: SocketAddr) -> JoinSet<()> {
    let mut visitors = JoinSet::new();
    let ask = format!("GET /api/v1/history HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    for _ in 0..32 {
        let ask = ask.clone();
        visitors.spawn(async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(admin).await else { continue };
                let (mut from, mut to) = stream.split();
                let read = async { tokio::io::copy(&mut from, &mut tokio::io::sink()).await };
                let write = async { while to.write_all(ask.as_bytes()).await.is_ok() {} };
                // Reading and writing end when the director closes the connection.
                tokio::select! { _ = read => {}, () = write => {} }
            }
        });
    }
    for n in 0..96 {
        visitors.spawn(async move {
            let head = format!("POST /api/v1/zero HTTP/1.1\r\nHost: {admin}\r\nContent-Length: ");
            let request = match n % 3 {
                0 => "GET / HTTP/1.1\r\nX: ".to_owned(),
                1 => head + "9\r\n\r\n{",
                _ => head + "999999999\r\n\r\n" + &"x".repeat(100_000),
            };
            loop {
                let Ok(mut stream) = TcpStream::connect(admin).await else { continue };
                let _ = stream.write_all(request.as_bytes()).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
    }
    visitors
}

fn read(text: &str) -> DirectorConfig {
    DirectorConfig::parse(text).expect("sound")
}

async fn start(text: &str) -> Director {
    Director::start(read(text)).await.expect("the director starts")
}

/// Returns configurations that each change something else about the service.
fn variant(text: &str, n: u64) -> String {
    let extra = match n % 6 {
        0 => "tcp = { idle_timeout = \"1m\" }",
        1 => "persistence = { timeout = \"5m\" }",
        2 => "health = { type = \"tcp\", interval = \"100ms\" }",
        3 => "workers = 3",
        4 => "slow_start = { window = \"5s\" }",
        _ => "sorry_server = \"127.0.0.1:9\"",
    };
    let text = text.replace("scheduler", &format!("{extra}\nscheduler"));
    if n % 4 == 3 { text.replace("\"wrr\"", "\"maglev\"") } else { text }
}

async fn server() -> SocketAddr {
    let listener = TcpSocket::new_v4().expect("a socket");
    listener.bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
    let listener = listener.listen(4096).expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A client that has gone needs no answer.
                let _ = stream.write_all(b"x").await;
            });
        }
    });
    address
}

/// Opens connections by a clock, in batches of a millisecond.
async fn load(to: SocketAddr, rate: u64, seconds: u64, seen: Arc<Seen>) {
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    let all = rate * seconds;
    let mut begun = 0;
    for turn in 1..=seconds * 1000 {
        tick.tick().await;
        while begun < all.min(turn * rate / 1000) {
            begun += 1;
            let seen = Arc::clone(&seen);
            tasks.spawn(async move {
                let start = Instant::now();
                let done = timeout(Duration::from_secs(10), one(to, (begun % 200) as u8)).await;
                let done = matches!(done, Ok(Ok(())));
                let count = if done { &seen.served } else { &seen.failed };
                count.fetch_add(1, Ordering::Relaxed);
                let took = (Instant::now() - start).as_micros() as u64;
                seen.took.lock().expect("no panic").push(took);
            });
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

/// Opens a connection from one of many addresses: the ports of one address would run out.
async fn one(to: SocketAddr, client: u8) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 1, client), 0).into())?;
    socket.connect(to).await?.read_u8().await.map(drop)
}
