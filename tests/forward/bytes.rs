//! Every byte arrives, however it is cut, held up or ended.

use lvs::scheduler::RoundRobin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lvs::scheduler::Rng;
use proptest::prelude::*;

use crate::world::*;

const MIB: usize = 1 << 20;

/// How one side sends: pieces of some size, with a stall now and then, and then its half is closed
/// or left open until the other side has ended.
#[derive(Clone, Copy, Debug)]
struct Manner {
    total: usize,
    piece: usize,
    /// How often a stall comes, in pieces; 0 is never.
    stall: u64,
    closes_half: bool,
    seed: u64,
}

fn manner(total: usize) -> impl Strategy<Value = Manner> {
    let piece = prop_oneof![1usize..100, 100usize..20_000, 20_000usize..300_000];
    (piece, 0u64..40, any::<bool>(), any::<u64>()).prop_map(
        move |(piece, stall, closes_half, seed)| {
            // Single bytes take a call each: fewer of them are as good.
            let total = if piece < 100 { total / 256 } else { total };
            Manner { total, piece, stall, closes_half, seed }
        },
    )
}

/// The same bytes for the same seed, wherever they are cut.
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
    manner: Manner,
) -> tokio::net::tcp::OwnedWriteHalf {
    let (mut noise, mut pace) = (Noise::new(manner.seed), Rng::with_seed(!manner.seed));
    let (mut left, mut buffer) = (manner.total, vec![0; manner.piece]);
    while left > 0 {
        let piece = (1 + pace.below(manner.piece as u64) as usize).min(left);
        noise.fill(&mut buffer[..piece]);
        half.write_all(&buffer[..piece]).await.expect("open");
        left -= piece;
        if manner.stall != 0 && pace.below(manner.stall * 20) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    if manner.closes_half {
        half.shutdown().await.expect("open");
    }
    half
}

async fn receive(half: &mut tokio::net::tcp::OwnedReadHalf, manner: Manner) {
    let (mut noise, mut pace) = (Noise::new(manner.seed), Rng::with_seed(manner.seed ^ 1));
    let (mut buffer, mut want) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    let mut left = manner.total;
    while left > 0 {
        let room = 1 + pace.below(buffer.len() as u64) as usize;
        let got = half.read(&mut buffer[..room]).await.expect("open");
        assert_ne!(got, 0, "{left} bytes are missing");
        noise.fill(&mut want[..got]);
        assert!(buffer[..got] == want[..got], "other bytes, {left} from the end");
        left = left.checked_sub(got).expect("no more than was sent");
        if manner.stall != 0 && pace.below(manner.stall * 20) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    if manner.closes_half {
        assert_eq!(half.read(&mut buffer).await.expect("an end in order"), 0);
    }
}

async fn both_ways(up: Manner, down: Manner) {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder.workers(1));
    let (client, server) = meet(&handle, &stage).await;
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
    fn sixty_four_mebibytes_each_way_at_once_arrive_whole(
        up in manner(64 * MIB),
        down in manner(64 * MIB),
    ) {
        runtime().block_on(both_ways(up, down));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]

    #[test]
    fn any_two_manners_get_along(up in manner(MIB / 2), down in manner(MIB / 2)) {
        runtime().block_on(both_ways(up, down));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[tokio::test]
async fn a_peer_that_never_reads_holds_up_its_sender_and_nobody_else() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder.workers(1));
    let (mut sender, deaf) = meet(&handle, &stage).await;
    let sent = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        let much = vec![1; MIB];
        while let Ok(count) = sender.write(&much).await {
            counting.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    // Until it stands still: the same number for many rounds of somebody else's traffic.
    let (mut last, mut rounds) = (0, 0);
    while rounds < 50 {
        let (mut client, mut server) = meet(&handle, &stage).await;
        client.write_all(b"ping").await.expect("open");
        assert_eq!(&read::<4>(&mut server).await, b"ping", "others are served");
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = sent.load(Ordering::Relaxed);
        rounds = if now == last && now > 0 { rounds + 1 } else { 0 };
        last = now;
    }
    // What two sockets' buffers and one pipe take, and no more.
    assert!(last < 64 * MIB as u64, "{last} bytes are held");
    let held = last - handle.counters().bytes_to_backends;
    println!("{last} bytes sent, of which {held} are on the sender's side of the forwarder");
    sending.abort();
    drop(deaf);
    end(&handle, running).await;
}

/// A pipe must not stop at the mark, nor take it for the end.
#[tokio::test]
async fn urgent_data_in_the_middle_of_bulk_holds_nothing_up() {
    const HALF: usize = 2 * MIB;
    const URGENT: usize = 64 << 10;
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder.workers(1));
    let (mut client, mut server) = meet(&handle, &stage).await;
    let sending = tokio::spawn(async move {
        for half in [1, 2] {
            server.write_all(&vec![half; HALF]).await.expect("open");
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Its last byte is the urgent one, and goes nowhere, as through any relay that does not
            // know it.
            socket2::SockRef::from(&server).send_out_of_band(&[half; URGENT]).expect("room");
        }
    });
    let mut got = Vec::new();
    let reading = tokio::time::timeout(LONG, client.read_to_end(&mut got));
    reading.await.expect("nothing hangs").expect("an end in order");
    sending.await.expect("no panic");
    let of = |half| got.iter().filter(|byte| **byte == half).count();
    assert_eq!((of(1), of(2)), (HALF + URGENT - 1, HALF + URGENT - 1));
    drop(client);
    end(&handle, running).await;
}

/// All is there before the first read: nothing that arrives later wakes the reader again. A short
/// read has stopped at the mark, then, and not because that was all; neither has a pipe.
#[tokio::test]
async fn what_lies_behind_an_urgent_byte_needs_nothing_to_follow_it() {
    // Small messages are copied; bulk, known by a large read, is spliced.
    for before in [3, (64 << 10) + (64 << 10)] {
        let (address, stage) = stage().await;
        let (set, _) = world(&[address]);
        let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
        let listener = TcpSocket::new_v4().expect("a socket");
        listener.set_recv_buffer_size(1 << 20).expect("an option");
        listener.bind(LOOPBACK).expect("loopback");
        let listener = listener.listen(8).expect("bound").into_std().expect("idle");
        let forwarder = Forwarder::new(listener, balancer).expect("a listener").workers(1);
        let mut client = TcpStream::connect(at(&forwarder.handle())).await.expect("in its queue");
        client.write_all(&vec![b'x'; before]).await.expect("room");
        let urgent = socket2::SockRef::from(&client).send_out_of_band(b"!").expect("room");
        assert_eq!(urgent, 1);
        client.write_all(b"behind").await.expect("room");

        let (handle, running) = start(forwarder);
        let (mut server, _) = stage.accept().await.expect("the forwarder connects");
        let mut got = vec![0; before + b"behind".len()];
        let reading = tokio::time::timeout(LONG, server.read_exact(&mut got));
        reading.await.expect("nothing hangs").expect("not its end");
        assert_eq!(&got[before..], b"behind");
        drop((client, server));
        end(&handle, running).await;
    }
}
