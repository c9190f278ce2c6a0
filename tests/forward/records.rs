//! What is written down of each connection.

use std::sync::mpsc::{Receiver, channel};

use lvs::forward::ConnectionRecord;
use lvs::{Health, Limits};

use crate::world::*;

fn recorded(forwarder: Forwarder) -> (Forwarder, Receiver<ConnectionRecord>) {
    let (tell, told) = channel();
    (forwarder.name("web").on_end(move |record| tell.send(record.clone()).expect("heard")), told)
}

async fn next(told: &Receiver<ConnectionRecord>) -> ConnectionRecord {
    let mut record = None;
    until(|| {
        record = told.try_recv().ok();
        record.is_some()
    })
    .await;
    record.expect("told")
}

#[tokio::test]
async fn a_connection_leaves_a_record() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (forwarder, told) = recorded(forwarder);
    let (handle, running) = start(forwarder);
    let (mut client, mut server) = meet(&handle, &stage).await;
    let client_address = client.local_addr().expect("connected");
    client.write_all(b"abc").await.expect("open");
    client.shutdown().await.expect("open");
    assert_eq!(all_of(&mut server).await, b"abc");
    server.write_all(b"defgh").await.expect("open");
    drop(server);
    assert_eq!(all_of(&mut client).await, b"defgh");
    let record = next(&told).await;
    assert_eq!(record.termination.code(), "--");
    assert_eq!((&*record.service, record.client), ("web", Some(client_address)));
    assert_eq!(record.local, handle.local_addr());
    assert_eq!(record.backend.as_ref().map(BackendId::as_str), Some("0"));
    assert_eq!(record.backend_address, Some(address));
    assert_eq!((record.bytes_to_backend, record.bytes_to_client, record.attempts), (3, 5, 1));
    assert_eq!((record.listener_connections, record.backend_connections), (1, Some(1)));
    assert!(record.connect_time.is_some_and(|took| took <= record.total_time));
    assert_eq!(record.to_string().split(' ').count(), 16);

    let of_backend = &handle.backends()[0];
    assert_eq!((of_backend.connections, of_backend.active, of_backend.aborted), (1, 0, 0));
    assert_eq!((of_backend.bytes_in, of_backend.bytes_out), (3, 5));
    assert_eq!((of_backend.duration.count(), of_backend.connect_time.count()), (1, 1));
    assert_eq!(handle.durations().count(), 1);
    end(&handle, running).await;
}

#[tokio::test]
async fn each_end_has_its_code() {
    let (address, stage) = stage().await;
    let (set, forwarder) = world(&[address]);
    let idle = Some(Duration::from_millis(100));
    let (forwarder, told) = recorded(forwarder.idle_timeout(idle));
    let (handle, running) = start(forwarder);

    let (mut client, mut server) = meet(&handle, &stage).await;
    client.write_all(b"!").await.expect("open");
    read::<1>(&mut server).await;
    reset(client);
    assert_eq!(next(&told).await.termination.code(), "CD");
    drop(server);

    let (mut client, mut server) = meet(&handle, &stage).await;
    client.write_all(b"!").await.expect("open");
    read::<1>(&mut server).await;
    reset(server);
    assert_eq!(next(&told).await.termination.code(), "SD");
    drop(client);

    let (mut client, mut server) = meet(&handle, &stage).await;
    assert_eq!(next(&told).await.termination.code(), "cD", "nobody spoke");
    drop((client, server));
    (client, server) = meet(&handle, &stage).await;
    client.write_all(b"?").await.expect("open");
    assert_eq!(next(&told).await.termination.code(), "sD", "the server owes an answer");
    drop((client, server));

    (client, server) = meet(&handle, &stage).await;
    server.shutdown().await.expect("open");
    assert_eq!(next(&told).await.termination.code(), "cL", "the client does not close");
    drop((client, server));

    let one = BackendId::from("0");
    set.set_limits(&one, Limits::new(1)).expect("a backend");
    let held = meet(&handle, &stage).await;
    assert_turned_away(&handle).await;
    assert_eq!(next(&told).await.termination.code(), "PQ");
    drop(held);
    assert_eq!(next(&told).await.termination.code(), "--");

    set.set_limits(&one, Limits::NONE).expect("a backend");
    set.set_health(&one, Health::Down).expect("a backend");
    assert_turned_away(&handle).await;
    assert_eq!(next(&told).await.termination.code(), "SC", "nobody to try");

    set.set_health(&one, Health::Up).expect("a backend");
    let held = meet(&handle, &stage).await;
    handle.shutdown(Duration::ZERO);
    running.await.expect("no panic").expect("no error");
    assert_eq!(next(&told).await.termination.code(), "KD");
    drop(held);
}

#[tokio::test]
async fn a_panic_of_the_observer_is_the_observers_own() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.on_end(|_| panic!("as the test wants")));
    assert_eq!(exchange(&handle, b"x").await, b'a');
    assert_eq!(exchange(&handle, b"y").await, b'a');
    let (drained, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.active, drained.cut), (2, 0, 0));
}

#[tokio::test]
async fn at_debug_level_each_connection_is_a_span() {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Workers are other threads; no other test of this program listens.
    tracing::subscriber::set_global_default(subscriber).expect("nobody else's");
    let (_set, forwarder) = world(&[]);
    let (handle, running) = start(forwarder.name("front"));
    assert_turned_away(&handle).await;
    end(&handle, running).await;
    let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
    let line = text.lines().find(|line| line.contains("service=\"front\""));
    let line = line.expect("the connection's span");
    assert!(line.contains("connection{") && line.contains("refusal=NoBackend"), "{line}");
}
