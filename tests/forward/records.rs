//! Connection records and spans.

use std::sync::mpsc::{Receiver, channel};

use lvs::forward::ConnectionRecord;
use lvs::{Health, Limits};

use crate::fixture::*;

fn recorded(forwarder: Forwarder) -> (Forwarder, Receiver<ConnectionRecord>) {
    let (sender, records) = channel();
    (
        forwarder
            .name("web")
            .on_end(move |record| sender.send(record.clone()).expect("the test receives records")),
        records,
    )
}

async fn next(records: &Receiver<ConnectionRecord>) -> ConnectionRecord {
    let mut record = None;
    until(|| {
        record = records.try_recv().ok();
        record.is_some()
    })
    .await;
    record.expect("a record")
}

#[tokio::test]
async fn a_finished_connection_makes_a_record() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (forwarder, records) = recorded(forwarder);
    let (handle, running) = start(forwarder);
    let (mut client, mut server) = connect_through(&handle, &server_listener).await;
    let client_address = client.local_addr().expect("connected");
    client.write_all(b"abc").await.expect("the stream is open");
    client.shutdown().await.expect("the stream is open");
    assert_eq!(read_to_end(&mut server).await, b"abc");
    server.write_all(b"defgh").await.expect("the stream is open");
    drop(server);
    assert_eq!(read_to_end(&mut client).await, b"defgh");
    let record = next(&records).await;
    assert_eq!(record.termination.code(), "--");
    assert_eq!((&*record.service, record.client), ("web", Some(client_address)));
    assert_eq!(record.local, handle.local_addr());
    assert_eq!(record.backend.as_ref().map(BackendId::as_str), Some("0"));
    assert_eq!(record.backend_address, Some(address));
    assert_eq!((record.bytes_to_backend, record.bytes_to_client, record.attempts), (3, 5, 1));
    assert_eq!((record.listener_connections, record.backend_connections), (1, Some(1)));
    assert!(record.connect_time.is_some_and(|time| time <= record.total_time));
    assert_eq!(record.to_string().split(' ').count(), 17);

    let counters = &handle.backends()[0];
    assert_eq!((counters.connections, counters.active, counters.aborted), (1, 0, 0));
    assert_eq!((counters.bytes_in, counters.bytes_out), (3, 5));
    assert_eq!((counters.duration.count(), counters.connect_time.count()), (1, 1));
    assert_eq!(handle.durations().count(), 1);
    end(&handle, running).await;
}

#[tokio::test]
async fn each_termination_has_its_code() {
    let (address, server_listener) = bind_server().await;
    let (set, forwarder) = forwarder_to(&[address]);
    let idle = Some(Duration::from_millis(100));
    let (forwarder, records) = recorded(forwarder.idle_timeout(idle));
    let (handle, running) = start(forwarder);

    let (mut client, mut server) = connect_through(&handle, &server_listener).await;
    client.write_all(b"!").await.expect("the stream is open");
    read::<1>(&mut server).await;
    reset(client);
    assert_eq!(next(&records).await.termination.code(), "CD");
    drop(server);

    let (mut client, mut server) = connect_through(&handle, &server_listener).await;
    client.write_all(b"!").await.expect("the stream is open");
    read::<1>(&mut server).await;
    reset(server);
    assert_eq!(next(&records).await.termination.code(), "SD");
    drop(client);

    let (mut client, mut server) = connect_through(&handle, &server_listener).await;
    assert_eq!(next(&records).await.termination.code(), "cD", "no side sent bytes");
    drop((client, server));
    (client, server) = connect_through(&handle, &server_listener).await;
    client.write_all(b"?").await.expect("the stream is open");
    assert_eq!(next(&records).await.termination.code(), "sD", "the client sent the last bytes");
    drop((client, server));

    (client, server) = connect_through(&handle, &server_listener).await;
    server.shutdown().await.expect("the stream is open");
    assert_eq!(next(&records).await.termination.code(), "cL", "the client does not close");
    drop((client, server));

    let id = BackendId::from("0");
    set.set_limits(&id, Limits::new(1)).expect("the backend is in the set");
    let held = connect_through(&handle, &server_listener).await;
    assert_refused(&handle).await;
    let record = next(&records).await;
    assert_eq!((record.termination.code(), record.refusal), ("PQ", Some("saturated")));
    drop(held);
    let record = next(&records).await;
    assert_eq!((record.termination.code(), record.refusal), ("--", None));

    set.set_limits(&id, Limits::NONE).expect("the backend is in the set");
    set.set_health(&id, Health::Down).expect("the backend is in the set");
    assert_refused(&handle).await;
    let record = next(&records).await;
    assert_eq!((record.termination.code(), record.refusal), ("SC", Some("no_server")));

    set.set_health(&id, Health::Up).expect("the backend is in the set");
    let held = connect_through(&handle, &server_listener).await;
    handle.shutdown(Duration::ZERO);
    running.await.expect("the task does not panic").expect("the forwarder does not fail");
    assert_eq!(next(&records).await.termination.code(), "KD");
    drop(held);
}

#[tokio::test]
async fn a_panic_of_the_callback_is_caught() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.on_end(|_| panic!("panic of the test")));
    assert_eq!(exchange(&handle, b"x").await, b'a');
    assert_eq!(exchange(&handle, b"y").await, b'a');
    let (report, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.active, report.cut), (2, 0, 0));
}

#[tokio::test]
async fn at_debug_level_each_connection_is_a_span() {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("the task does not panic").extend_from_slice(bytes);
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
    // Workers are other threads; no other test of this program sets a subscriber.
    tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
    let (_set, forwarder) = forwarder_to(&[]);
    let (handle, running) = start(forwarder.name("front"));
    assert_refused(&handle).await;
    end(&handle, running).await;
    let text =
        String::from_utf8(lines.0.lock().expect("the task does not panic").clone()).expect("text");
    let line = text.lines().find(|line| line.contains("service=\"front\""));
    let line = line.expect("the span of the connection");
    assert!(
        line.contains("connection{") && line.ends_with("the connection is refused: no_server"),
        "{line}"
    );
}
