//! The death of a backend under load, and backends that are marked down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lvs::Health;
use lvs::scheduler::RoundRobin;
use tokio::sync::watch;

use crate::fixture::*;

const CONNECTIONS: usize = 1000;

/// Starts a server that sends its name and echoes until it is killed: then its listener is closed and
/// its connections are reset.
async fn mortal(name: u8) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind(LOOPBACK).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (kill, mut dead) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = dead.wait_for(|dead| *dead) => return,
            };
            let Ok((mut stream, _)) = accepted else { continue };
            let mut dead = dead.clone();
            tokio::spawn(async move {
                let echo = async {
                    stream.write_all(&[name]).await?;
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                };
                let died = tokio::select! {
                    _ = echo => false,
                    _ = dead.wait_for(|dead| *dead) => true,
                };
                if died {
                    reset(stream);
                }
            });
        }
    });
    (address, kill)
}

/// Exchanges messages until `stop`, counting them; returns whether all succeeded.
async fn exchange_messages(
    mut stream: TcpStream,
    stop: Arc<AtomicBool>,
    messages: Arc<AtomicU64>,
) -> bool {
    let mut byte = [0];
    while !stop.load(Ordering::Relaxed) {
        let is_sent = stream.write_all(b"x").await.is_ok();
        if !is_sent || stream.read_exact(&mut byte).await.is_err() || byte != *b"x" {
            return false;
        }
        messages.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_dies_breaks_only_its_own_connections() {
    let (mut targets, mut kills) = (Vec::new(), Vec::new());
    for name in b"abc" {
        let (address, kill) = mortal(*name).await;
        targets.push(address);
        kills.push(kill);
    }
    let dying = targets[1];
    let set = BackendSet::new();
    for (i, target) in targets.into_iter().enumerate() {
        set.insert(Spec::new(i.to_string(), target)).expect("the name is new");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let forwarder = Forwarder::bind(LOOPBACK, balancer).expect("a free port").workers(2);
    let (handle, running) = start(forwarder);

    let (stop, messages) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = open(&handle).await;
        let [name] = read::<1>(&mut stream).await;
        clients.push((
            name,
            tokio::spawn(exchange_messages(stream, Arc::clone(&stop), Arc::clone(&messages))),
        ));
    }
    until(|| messages.load(Ordering::Relaxed) > CONNECTIONS as u64).await;
    kills[1].send(true).expect("the server is running");
    // A connection in the accept queue of the dying server is established and may have sent bytes: it is
    // not a new connection.
    while TcpStream::connect(dying).await.is_ok() {}
    // New clients connect meanwhile; the scheduler picks the dead backend every third time.
    for i in 0..300 {
        assert_ne!(exchange(&handle, b"new").await, b'b', "client {i}");
    }
    let so_far = messages.load(Ordering::Relaxed);
    until(|| messages.load(Ordering::Relaxed) > so_far + CONNECTIONS as u64).await;
    stop.store(true, Ordering::Relaxed);
    let mut broken = [0; 2];
    for (name, client) in clients {
        let succeeded = client.await.expect("the task does not panic");
        broken[usize::from(name == b'b')] += usize::from(!succeeded);
    }
    let share = CONNECTIONS / 3;
    assert!(broken[0] == 0 && (share..=share + 1).contains(&broken[1]), "{broken:?}");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.refused.sum(), 0);
    assert!(counters.failed_connects >= 90, "{counters:?}");
    assert_eq!(counters.backend_aborted as usize, broken[1]);
    let dead = handle.backends().into_iter().find(|backend| backend.id.as_str() == "1");
    let dead = dead.expect("the backend had connections");
    assert_eq!((dead.active, dead.aborted as usize), (0, broken[1]));
}

/// The connections of a backend that is marked down end; those of others continue.
#[tokio::test]
async fn cut_on_down_ends_the_connections_of_a_backend_that_is_down() {
    for cut in [true, false] {
        let (set, forwarder) = forwarder_to(&[echo(b'a').await, echo(b'b').await]);
        let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let forwarder = forwarder.workers(1).cut_on_down(cut).on_end(move |record| {
            let _ = ends.send(record.termination.code());
        });
        let (handle, running) = start(forwarder);
        let mut clients = [open(&handle).await, open(&handle).await];
        for (client, name) in clients.iter_mut().zip(*b"ab") {
            assert_eq!(read::<1>(client).await, [name]);
        }
        let [mut hanging, mut healthy] = clients;
        set.set_health(&"0".into(), Health::Down).expect("the backend is in the set");
        if cut {
            assert_reset(hanging).await;
            assert_eq!(ended.recv().await, Some("DD"));
            // A drained backend is not down.
            set.drain(&"1".into()).expect("the backend is in the set");
        } else {
            hanging.write_all(b"x").await.expect("the stream is open");
            assert_eq!(&read::<1>(&mut hanging).await, b"x");
            drop(hanging);
            assert_eq!(ended.recv().await, Some("--"));
        }
        healthy.write_all(b"x").await.expect("the stream is open");
        assert_eq!(&read::<1>(&mut healthy).await, b"x");
        healthy.shutdown().await.expect("the stream is open");
        assert_eq!(ended.recv().await, Some("--"));
        let (_, counters) = end(&handle, running).await;
        let sums = (counters.backend_down, counters.finished);
        assert_eq!(sums, if cut { (1, 1) } else { (0, 2) });
    }
}
