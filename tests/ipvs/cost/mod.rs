//! What each engine costs, in instructions of the whole guest: the kernel, the client, the server and the
//! program between them.
//!
//! ```text
//! cargo test --release --test ipvs -- --ignored cost:: --nocapture
//! ```
//! QEMU counts the instructions, and advances the guest's clock by a nanosecond for each. So the guest's
//! clock is the counter, whatever the machine below is and does meanwhile; it says nothing about time,
//! because instructions that miss a cache count as much as others. Client and server take turns, so that
//! the processor, which is one, is not idle, when the clock leaps; what it leaps is left out.
//!
//! Without optimization, as in CI, everything is done a few times only.

mod row;
mod table;
mod work;
mod world;

use lvs::ipvs::{IpvsForwarding, IpvsTunnel};
use rustix::time::{ClockId, clock_gettime};

use self::row::{Measured, Path};
use self::table::print_tables;
use self::work::{Load, Work};
use self::world::World;
use crate::guest::{self, Guest, GuestKernel};

/// How often each figure is measured.
const ROUNDS: usize = if cfg!(debug_assertions) { 2 } else { 3 };

/// The columns: the head, the work, and how often it is done in a round.
type Columns = [(&'static str, Work, usize); 5];

const BY_PAIRS: Columns = [
    ("packet 64 B", Work::Datagrams(64), pieces(2048)),
    ("packet 1400 B", Work::Datagrams(1400), pieces(2048)),
    ("request", Work::Requests, pieces(1000)),
    ("connection", Work::Connections, pieces(500)),
    ("MB", Work::Download, pieces(64)),
];

/// The flows of which each sends one packet.
const MANY: usize = pieces(8192);

const BY_CARDS: Columns = [
    ("packet 64 B", Work::Datagrams(64), pieces(2048)),
    ("first of a flow", Work::FirstOfFlows, MANY),
    ("of many flows", Work::OfFlows, MANY),
    ("request", Work::Requests, pieces(1000)),
    ("connection", Work::Connections, pieces(500)),
];

const fn pieces(optimized: usize) -> usize {
    if cfg!(debug_assertions) { optimized.div_ceil(1024) * work::BURST } else { optimized }
}

#[test]
#[ignore = "measures"]
fn each_engine_by_pairs_of_devices() {
    if guest::enter() {
        return measure(&World::build(false), BY_PAIRS, &PATHS_BY_PAIRS);
    }
    boot("cost::each_engine_by_pairs_of_devices", &[]);
}

/// With a driver that has XDP. The machines have no segments that a device joins or cuts, and no checksums that it
/// completes.
#[test]
#[ignore = "measures"]
fn each_engine_by_network_cards() {
    if guest::enter() {
        return measure(
            &World::build(true),
            BY_CARDS,
            &[&PATHS_BY_PAIRS[..8], &PATHS_AT_XDP].concat(),
        );
    }
    boot("cost::each_engine_by_network_cards", &[3]);
}

fn boot(test: &'static str, wires: &'static [u8]) {
    let mut programs = vec!["ip"];
    programs.extend(option_env!("CARGO_BIN_EXE_lvs"));
    if std::path::Path::new("/usr/sbin/haproxy").exists() {
        programs.push("haproxy");
    }
    let modules = ["ip_vs", "ip_vs_rr", "veth", "bridge", "ipip", "tun", "virtio_net"];
    let guest = Guest::new(test).modules(&modules).programs(&programs).wires(wires);
    guest.counting_instructions().run(GuestKernel::Qemu);
}

fn measure(world: &World, columns: Columns, paths: &[(&'static str, Path)]) {
    let mut load = Load::start();
    let mut rows = Vec::new();
    for &(name, path) in paths {
        let Some(route) = world.open(path) else {
            println!("{name}: the program is missing");
            continue;
        };
        let cells = columns.map(|(_, work, pieces)| {
            if work.is_udp() && !route.has_udp {
                return None;
            }
            if !work.is_of_many() {
                // Learns addresses and routes, and fills caches.
                load.run(route.address, work, pieces.div_ceil(4).next_multiple_of(work::BURST));
            }
            let rounds = [(); ROUNDS].map(|()| {
                let before = Clocks::read();
                load.run(route.address, work, pieces);
                Clocks::read().since(before)
            });
            Some(Measured::new(&rounds, pieces))
        });
        println!("{name}: {cells:?}");
        rows.push((name, cells));
    }
    print_tables(columns.map(|(head, ..)| head), &rows);
}

const IPIP: IpvsForwarding = IpvsForwarding::Tunnel(IpvsTunnel::Ipip);

const PATHS_BY_PAIRS: [(&str, Path); 14] = [
    ("no director", Path::Direct),
    ("routed", Path::Routed),
    ("ipvs, nat", Path::Ipvs(IpvsForwarding::Nat)),
    ("ipvs, dr", Path::Ipvs(IpvsForwarding::DirectRouting)),
    ("ipvs, tunnel", Path::Ipvs(IPIP)),
    ("packet, nat, a table decides", Path::Packet { scheduler: "maglev", method: "nat" }),
    ("packet, nat, wlc decides", Path::Packet { scheduler: "wlc", method: "nat" }),
    ("packet, dr, a table decides", Path::Packet { scheduler: "maglev", method: "dr" }),
    ("packet, dr, wlc decides", Path::Packet { scheduler: "wlc", method: "dr" }),
    ("packet, tunnel, a table decides", Path::Packet { scheduler: "maglev", method: "tunnel" }),
    ("packet, tunnel, wlc decides", Path::Packet { scheduler: "wlc", method: "tunnel" }),
    ("proxy", Path::Proxy),
    ("HAProxy", Path::Haproxy { is_splicing: false }),
    ("HAProxy, splice", Path::Haproxy { is_splicing: true }),
];

/// Beside the first eight of the others: no machine has segments that its card cuts or joins, on which proxies rely.
const PATHS_AT_XDP: [(&str, Path); 6] = [
    (
        "packet at XDP, nat, a table decides",
        Path::PacketAtXdp { scheduler: "maglev", method: "nat" },
    ),
    ("packet at XDP, nat, wlc decides", Path::PacketAtXdp { scheduler: "wlc", method: "nat" }),
    ("packet at XDP, dr, a table decides", Path::PacketAtXdp { scheduler: "maglev", method: "dr" }),
    ("packet at XDP, dr, wlc decides", Path::PacketAtXdp { scheduler: "wlc", method: "dr" }),
    (
        "packet at XDP, tunnel, a table decides",
        Path::PacketAtXdp { scheduler: "maglev", method: "tunnel" },
    ),
    (
        "packet at XDP, tunnel, wlc decides",
        Path::PacketAtXdp { scheduler: "wlc", method: "tunnel" },
    ),
];

/// The counter, and the part of it in which the processor was not idle, both in instructions.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    all: u64,
    busy: u64,
}

impl Clocks {
    fn read() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let all = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        Self { all, busy: busy_nanos() }
    }

    fn since(self, before: Self) -> Self {
        Self { all: self.all - before.all, busy: self.busy - before.busy }
    }
}

/// Returns how long processes have run until this one began to.
fn busy_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/schedstat").expect("a kernel of Debian has it");
    let line = text.lines().find(|line| line.starts_with("cpu0 ")).expect("a processor");
    let word = line.split_whitespace().nth(7).expect("nine numbers");
    word.parse().expect("a number")
}
