//! Measures what clients notice of each fault, for docs/scale.md.
//!
//! ```text
//! cargo test --release --all-features --test announce -- --ignored figures --nocapture
//! ```

use std::thread;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::machines::now;
use crate::traffic::{FIRST_PACKET_LIMIT, OpenConnections, Traffic};
use crate::world::{Carrier, DIRECTORS, Daemon};

/// Connections that are open when something happens.
const OPEN: usize = 300;
/// How long clients go on when the router has turned.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What happens to the director `d1`.
#[derive(Clone, Copy)]
enum Fault {
    Drained,
    Stopped,
    WithoutQuorum,
    Killed,
    MachineDead,
}

const FAULTS: [(&str, Fault); 5] = [
    ("drained", Fault::Drained),
    ("stopped in order", Fault::Stopped),
    ("without quorum", Fault::WithoutQuorum),
    ("process killed", Fault::Killed),
    ("machine dead", Fault::MachineDead),
];

#[test]
#[ignore = "figures, which take minutes"]
fn figures() {
    println!(
        "| engine | daemon | director | the router has turned after | no connection, of attempts | \
         broken of {OPEN} open |"
    );
    println!("|---|---|---|---|---|---|");
    for carrier in [Carrier::Proxy, Carrier::PacketByTable] {
        for (daemon, with_bfd) in
            [(Daemon::Bird, true), (Daemon::Bird, false), (Daemon::Frr, true), (Daemon::Frr, false)]
        {
            let cluster = Cluster::start_with(daemon, with_bfd, carrier, "");
            let Some(mut cluster) = cluster else { return };
            for (name, fault) in FAULTS {
                // Without BFD the others are the same.
                if with_bfd || matches!(fault, Fault::MachineDead) {
                    let name = format!(
                        "{carrier:?} | {daemon:?} | {name}{}",
                        match fault {
                            Fault::MachineDead if with_bfd => ", BFD",
                            Fault::MachineDead => ", hold time 9 s",
                            _ => "",
                        }
                    );
                    measure(&mut cluster, &name, fault);
                }
            }
        }
    }
}

fn measure(cluster: &mut Cluster, name: &str, fault: Fault) {
    let mut open = OpenConnections::open(&cluster.world, OPEN);
    let traffic = Traffic::start_with_limit(&cluster.world, FIRST_PACKET_LIMIT);
    thread::sleep(AFTERMATH);
    let event = now();
    match fault {
        Fault::Drained => cluster.set_mode("d1", "drain"),
        Fault::Stopped => cluster.signal_stop("d1"),
        Fault::WithoutQuorum => cluster.set_servers("d1", "down"),
        Fault::Killed => cluster.kill("d1"),
        Fault::MachineDead => cluster.world.unplug("d1"),
    }
    cluster.world.until_served_by(&["d2", "d3"]);
    let turned = now() - event;
    thread::sleep(AFTERMATH);
    let outcome = traffic.stop();
    let broken = open.count_broken();
    println!(
        "| {name} | {turned:.2?} | {} of {} | {broken} |",
        outcome.count_not_connected(),
        outcome.attempts
    );
    match fault {
        Fault::Drained => cluster.set_mode("d1", "normal"),
        Fault::Stopped => {
            cluster.stop("d1");
            cluster.start_director("d1");
        }
        Fault::WithoutQuorum => cluster.set_servers("d1", "up"),
        Fault::Killed => cluster.start_director("d1"),
        // The last one: daemons wait for minutes before they speak to it again.
        Fault::MachineDead => return,
    }
    cluster.world.until_served_by(&DIRECTORS);
}

#[test]
#[ignore = "figures"]
fn figures_of_a_rolling_change() {
    let cluster = Cluster::start_with(Daemon::Bird, true, Carrier::PacketByTable, "");
    let Some(cluster) = cluster else { return };
    let fingerprints = || {
        DIRECTORS.map(|side| {
            let status = cluster.world.status(side).expect("the director answers");
            status["services"][0]["fingerprint"].as_str().expect("text").to_owned()
        })
    };
    let before = fingerprints();
    assert!(before.iter().all(|it| *it == before[0]), "{before:?}");
    let mut times = Vec::new();
    for weight in 2..=21 {
        let began = now();
        for side in DIRECTORS {
            cluster.set_weight(side, weight);
        }
        times.push(now() - began);
        let after = fingerprints();
        assert!(after.iter().all(|it| *it == after[0]), "{after:?}");
        assert_ne!(after[0], before[0]);
    }
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "a weight changed at three directors, one after the other: {median:.2?} (at most {most:.2?}) from the first \
         request to the last answer"
    );
}
