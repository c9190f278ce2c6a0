//! Every byte arrives unchanged, whatever the sizes of writes, the stalls and the ends.

use lvs::scheduler::RoundRobin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lvs::scheduler::Rng;
use proptest::prelude::*;

use crate::fixture::*;

const MIB: usize = 1 << 20;

/// How one side sends: writes up to a size, with stalls, after which its half is closed, or stays open
/// until the other side has ended.
#[derive(Clone, Copy, Debug)]
struct SendPattern {
    total: usize,
    piece: usize,
    /// A stall occurs about every 20 times this many writes; 0 is never.
    stall: u64,
    closes_half: bool,
    seed: u64,
}

fn any_send_pattern(total: usize) -> impl Strategy<Value = SendPattern> {
    let piece = prop_oneof![1usize..100, 100usize..20_000, 20_000usize..300_000];
    (piece, 0u64..40, any::<bool>(), any::<u64>()).prop_map(
        move |(piece, stall, closes_half, seed)| {
            // Small writes take a call each: fewer bytes are enough.
            let total = if piece < 100 { total / 256 } else { total };
            SendPattern { total, piece, stall, closes_half, seed }
        },
    )
}

/// A reproducible stream of bytes: independent of the sizes in which it is read.
struct Noise(Rng, u64, usize);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed), 0, 8)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.2 == 8 {
                (self.1, self.2) = (self.0.next_u64(), 0);
            }
            *byte = (self.1 >> (8 * self.2)) as u8;
            self.2 += 1;
        }
    }
}

async fn send(
    mut half: tokio::net::tcp::OwnedWriteHalf,
    pattern: SendPattern,
) -> tokio::net::tcp::OwnedWriteHalf {
    let (mut noise, mut pace) = (Noise::new(pattern.seed), Rng::with_seed(!pattern.seed));
    let (mut left, mut buffer) = (pattern.total, vec![0; pattern.piece]);
    while left > 0 {
        let piece = (1 + pace.below(pattern.piece as u64) as usize).min(left);
        noise.fill(&mut buffer[..piece]);
        half.write_all(&buffer[..piece]).await.expect("the stream is open");
        left -= piece;
        if pattern.stall != 0 && pace.below(pattern.stall * 20) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    if pattern.closes_half {
        half.shutdown().await.expect("the stream is open");
    }
    half
}

async fn receive(half: &mut tokio::net::tcp::OwnedReadHalf, pattern: SendPattern) {
    let (mut noise, mut pace) = (Noise::new(pattern.seed), Rng::with_seed(pattern.seed ^ 1));
    let (mut buffer, mut want) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    let mut left = pattern.total;
    while left > 0 {
        let room = 1 + pace.below(buffer.len() as u64) as usize;
        let got = half.read(&mut buffer[..room]).await.expect("the stream is open");
        assert_ne!(got, 0, "{left} bytes are missing");
        noise.fill(&mut want[..got]);
        assert!(buffer[..got] == want[..got], "other bytes, {left} from the end");
        left = left.checked_sub(got).expect("no more than was sent");
        if pattern.stall != 0 && pace.below(pattern.stall * 20) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    if pattern.closes_half {
        assert_eq!(half.read(&mut buffer).await.expect("the stream ends in order"), 0);
    }
}

async fn both_ways(up: SendPattern, down: SendPattern) {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder.workers(1));
    let (client, server) = connect_through(&handle, &server_listener).await;
    let ((mut client_reads, client_writes), (mut server_reads, server_writes)) =
        (client.into_split(), server.into_split());
    let sends = async { tokio::join!(send(client_writes, up), send(server_writes, down)) };
    let receives =
        async { tokio::join!(receive(&mut server_reads, up), receive(&mut client_reads, down)) };
    let (halves, _) = tokio::join!(sends, receives);
    drop((halves, client_reads, server_reads));
    let (_, counters) = end(&handle, running).await;
    assert_eq!(
        (counters.bytes_to_backends, counters.bytes_to_clients, counters.finished),
        (up.total as u64, down.total as u64, 1)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 8, ..Default::default() })]

    #[test]
    fn sixty_four_mebibytes_in_both_directions_arrive_unchanged(
        up in any_send_pattern(64 * MIB),
        down in any_send_pattern(64 * MIB),
    ) {
        runtime().block_on(both_ways(up, down));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]

    #[test]
    fn any_two_send_patterns_arrive_unchanged(up in any_send_pattern(MIB / 2), down in any_send_pattern(MIB / 2)) {
        runtime().block_on(both_ways(up, down));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[tokio::test]
async fn a_peer_that_never_reads_blocks_its_sender_and_no_other_connection() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder.workers(1));
    let (mut sender, silent_reader) = connect_through(&handle, &server_listener).await;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        let data = vec![1; MIB];
        while let Ok(count) = sender.write(&data).await {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    // Until the sender is blocked: no byte is sent for many rounds of another connection's traffic.
    let (mut last, mut rounds) = (0, 0);
    while rounds < 50 {
        let (mut client, mut server) = connect_through(&handle, &server_listener).await;
        client.write_all(b"ping").await.expect("the stream is open");
        assert_eq!(&read::<4>(&mut server).await, b"ping", "other connections are served");
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = sent.load(Ordering::Relaxed);
        rounds = if now == last && now > 0 { rounds + 1 } else { 0 };
        last = now;
    }
    // At most the buffers of two sockets and one pipe are filled.
    assert!(last < 64 * MIB as u64, "{last} bytes are buffered");
    let held = last - handle.counters().bytes_to_backends;
    println!("{last} bytes sent, of which {held} are on the sender's side of the forwarder");
    sending.abort();
    drop(silent_reader);
    end(&handle, running).await;
}

/// A splice must neither stop at the urgent mark nor take it for the end of the stream.
#[tokio::test]
async fn urgent_data_within_bulk_data_does_not_stall_the_relay() {
    const HALF: usize = 2 * MIB;
    const URGENT: usize = 64 << 10;
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder.workers(1));
    let (mut client, mut server) = connect_through(&handle, &server_listener).await;
    let sending = tokio::spawn(async move {
        for half in [1, 2] {
            server.write_all(&vec![half; HALF]).await.expect("the stream is open");
            tokio::time::sleep(Duration::from_millis(50)).await;
            // The last byte is urgent and is not relayed.
            socket2::SockRef::from(&server)
                .send_out_of_band(&[half; URGENT])
                .expect("the socket buffer has space");
        }
    });
    let mut got = Vec::new();
    let reading = tokio::time::timeout(TEST_TIMEOUT, client.read_to_end(&mut got));
    reading.await.expect("the relay does not stall").expect("the stream ends in order");
    sending.await.expect("the task does not panic");
    let count = |half| got.iter().filter(|byte| **byte == half).count();
    assert_eq!((count(1), count(2)), (HALF + URGENT - 1, HALF + URGENT - 1));
    drop(client);
    end(&handle, running).await;
}

/// All bytes arrive before the first read: no later event wakes the reader. A short read or splice has
/// stopped at the urgent mark, and not at the end of the available bytes.
#[tokio::test]
async fn bytes_behind_an_urgent_byte_arrive_without_further_data() {
    // A small message is copied; bulk data, detected by large reads, is spliced.
    for before in [3, (64 << 10) + (64 << 10)] {
        let (address, server_listener) = bind_server().await;
        let (set, _) = forwarder_to(&[address]);
        let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
        let listener = TcpSocket::new_v4().expect("a socket");
        listener.set_recv_buffer_size(1 << 20).expect("the option is accepted");
        listener.bind(LOOPBACK).expect("loopback");
        let listener = listener.listen(8).expect("bound").into_std().expect("idle");
        let forwarder = Forwarder::new(listener, balancer).expect("a listener").workers(1);
        let mut client = TcpStream::connect(address_of(&forwarder.handle()))
            .await
            .expect("the kernel queues the connection");
        client.write_all(&vec![b'x'; before]).await.expect("the socket buffer has space");
        let urgent = socket2::SockRef::from(&client)
            .send_out_of_band(b"!")
            .expect("the socket buffer has space");
        assert_eq!(urgent, 1);
        client.write_all(b"behind").await.expect("the socket buffer has space");

        let (handle, running) = start(forwarder);
        let (mut server, _) = server_listener.accept().await.expect("the forwarder connects");
        let mut got = vec![0; before + b"behind".len()];
        let reading = tokio::time::timeout(TEST_TIMEOUT, server.read_exact(&mut got));
        reading.await.expect("the relay does not stall").expect("all bytes arrive");
        assert_eq!(&got[before..], b"behind");
        drop((client, server));
        end(&handle, running).await;
    }
}
