//! A backend dies under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lvs::Health;
use lvs::scheduler::RoundRobin;
use tokio::sync::watch;

use crate::world::*;

const CONNECTIONS: usize = 1000;

/// A server that says its name and echoes, until it dies: then its listener is gone and its
/// connections are reset.
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

/// Sends and hears back, over and over; tells how often, and whether it ever failed.
async fn chat(mut stream: TcpStream, stop: Arc<AtomicBool>, chats: Arc<AtomicU64>) -> bool {
    let mut byte = [0];
    while !stop.load(Ordering::Relaxed) {
        let spoke = stream.write_all(b"x").await.is_ok();
        if !spoke || stream.read_exact(&mut byte).await.is_err() || byte != *b"x" {
            return false;
        }
        chats.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_dies_takes_only_its_own_connections_and_no_new_one_fails() {
    let (mut targets, mut kills) = (Vec::new(), Vec::new());
    for name in b"abc" {
        let (address, kill) = mortal(*name).await;
        targets.push(address);
        kills.push(kill);
    }
    let dying = targets[1];
    let set = BackendSet::new();
    for (i, target) in targets.into_iter().enumerate() {
        set.insert(Spec::new(i.to_string(), target)).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let forwarder = Forwarder::bind(LOOPBACK, balancer).expect("a free port").workers(2);
    let (handle, running) = start(forwarder);

    let (stop, chats) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = open(&handle).await;
        let [name] = read::<1>(&mut stream).await;
        clients.push((name, tokio::spawn(chat(stream, Arc::clone(&stop), Arc::clone(&chats)))));
    }
    until(|| chats.load(Ordering::Relaxed) > CONNECTIONS as u64).await;
    kills[1].send(true).expect("alive");
    // A connection that waits to be accepted when its server dies has been connected, and may have
    // sent something: that is not a new one.
    while TcpStream::connect(dying).await.is_ok() {}
    // New clients come all the while; the dead one has its turn every third time.
    for i in 0..300 {
        assert_ne!(exchange(&handle, b"new").await, b'b', "client {i}");
    }
    let so_far = chats.load(Ordering::Relaxed);
    until(|| chats.load(Ordering::Relaxed) > so_far + CONNECTIONS as u64).await;
    stop.store(true, Ordering::Relaxed);
    let mut broken = [0; 2];
    for (name, client) in clients {
        let went_well = client.await.expect("no panic");
        broken[usize::from(name == b'b')] += usize::from(!went_well);
    }
    let share = CONNECTIONS / 3;
    assert!(broken[0] == 0 && (share..=share + 1).contains(&broken[1]), "{broken:?}");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.refused.sum(), 0);
    assert!(counters.failed_connects >= 90, "{counters:?}");
    assert_eq!(counters.backend_aborted as usize, broken[1]);
    let dead = handle.backends().into_iter().find(|it| it.id.as_str() == "1");
    let dead = dead.expect("it has taken connections");
    assert_eq!((dead.active, dead.aborted as usize), (0, broken[1]));
}

/// What hangs and is found out: its clients are let go, and those of others carry on.
#[tokio::test]
async fn the_connections_of_a_backend_that_is_down_end_where_that_is_wanted() {
    for cut in [true, false] {
        let (set, forwarder) = world(&[echo(b'a').await, echo(b'b').await]);
        let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let forwarder = forwarder.workers(1).cut_on_down(cut).on_end(move |record| {
            let _ = ends.send(record.termination.code());
        });
        let (handle, running) = start(forwarder);
        let mut clients = [open(&handle).await, open(&handle).await];
        for (client, name) in clients.iter_mut().zip(*b"ab") {
            assert_eq!(read::<1>(client).await, [name]);
        }
        let [mut hanging, mut well] = clients;
        set.set_health(&"0".into(), Health::Down).expect("in the set");
        if cut {
            assert_reset(hanging).await;
            assert_eq!(ended.recv().await, Some("DD"));
            // Drained is not down.
            set.drain(&"1".into()).expect("in the set");
        } else {
            hanging.write_all(b"x").await.expect("open");
            assert_eq!(&read::<1>(&mut hanging).await, b"x");
            drop(hanging);
            assert_eq!(ended.recv().await, Some("--"));
        }
        well.write_all(b"x").await.expect("open");
        assert_eq!(&read::<1>(&mut well).await, b"x");
        well.shutdown().await.expect("open");
        assert_eq!(ended.recv().await, Some("--"));
        let (_, counters) = end(&handle, running).await;
        let sums = (counters.backend_down, counters.finished);
        assert_eq!(sums, if cut { (1, 1) } else { (0, 2) });
    }
}
