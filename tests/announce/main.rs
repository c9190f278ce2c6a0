//! Three directors with the same addresses, a router that spreads clients over them, and real routing daemons: BIRD and
//! FRR, with the configurations of `contrib/routing`, in network namespaces.
//!
//! The tests need root, `ip` and the daemons, and are skipped without them, with the reason.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod cluster;
mod figures;
#[path = "../common/machines.rs"]
mod machines;
mod traffic;
mod world;

use std::path::Path;

use crate::cluster::Cluster;
use crate::machines::until;
use crate::traffic::{OpenConnections, Traffic};
use crate::world::{ANNOUNCED, Carrier, DIRECTORS, Daemon};

/// Goes through all that happens to directors.
fn clients_are_served_whatever_happens(daemon: Daemon) {
    let Some(mut cluster) = Cluster::start(daemon, true, "") else { return };
    what_is_done_on_purpose_loses_nothing(&mut cluster);
    a_director_without_quorum_is_a_last_resort(&cluster);
    a_director_that_is_killed_is_left_at_once(&mut cluster);
    a_machine_that_is_dead_is_noticed(&cluster);
}

#[test]
fn clients_are_served_whatever_happens_with_bird() {
    clients_are_served_whatever_happens(Daemon::Bird);
}

#[test]
fn clients_are_served_whatever_happens_with_frr() {
    clients_are_served_whatever_happens(Daemon::Frr);
}

fn what_is_done_on_purpose_loses_nothing(cluster: &mut Cluster) {
    let traffic = Traffic::start(&cluster.world);
    cluster.set_mode("d2", "drain");
    cluster.until_state("d2", "draining");
    cluster.world.until_served_by(&["d1", "d3"]);
    cluster.set_mode("d2", "normal");
    cluster.world.until_served_by(&DIRECTORS);

    cluster.set_mode("d3", "withdraw");
    cluster.until_state("d3", "withdrawn");
    cluster.world.until_served_by(&["d1", "d2"]);
    cluster.set_mode("d3", "normal");
    cluster.world.until_served_by(&DIRECTORS);

    cluster.stop("d1");
    assert_eq!(cluster.world.next_hops(ANNOUNCED), ["d2", "d3"], "before the director ended");
    cluster.start_director("d1");
    cluster.world.until_served_by(&DIRECTORS);

    traffic.stop().assert_all_connected();
}

fn a_director_without_quorum_is_a_last_resort(cluster: &Cluster) {
    cluster.set_servers("d3", "down");
    cluster.until_state("d3", "last_resort");
    cluster.world.until_served_by(&["d1", "d2"]);
    let traffic = Traffic::start(&cluster.world);
    cluster.set_servers("d3", "up");
    cluster.world.until_served_by(&DIRECTORS);
    // It serves before it is preferred.
    traffic.stop().assert_all_connected();

    // The floor: when none has a quorum, the address does not disappear.
    cluster.set_servers("d1", "down");
    cluster.world.until_served_by(&["d2", "d3"]);
    cluster.set_servers("d2", "down");
    cluster.world.until_served_by(&["d3"]);
    cluster.set_servers("d3", "down");
    cluster.world.until_served_by(&DIRECTORS);
    for side in DIRECTORS {
        cluster.until_state(side, "last_resort");
    }
    cluster.set_servers("d2", "up");
    cluster.world.until_served_by(&["d2"]);
    cluster.set_servers("d1", "up");
    cluster.set_servers("d3", "up");
    cluster.world.until_served_by(&DIRECTORS);
}

fn a_director_that_is_killed_is_left_at_once(cluster: &mut Cluster) {
    cluster.kill("d1");
    cluster.world.until_served_by(&["d2", "d3"]);
    let traffic = Traffic::start(&cluster.world);
    cluster.start_director("d1");
    cluster.world.until_served_by(&DIRECTORS);
    traffic.stop().assert_all_connected();
}

fn a_machine_that_is_dead_is_noticed(cluster: &Cluster) {
    cluster.world.unplug("d2");
    cluster.world.until_served_by(&["d1", "d3"]);
    Traffic::start(&cluster.world).stop().assert_all_connected();
}

/// Directors with the same table choose the same server for a connection that has begun at another one.
#[test]
fn open_connections_go_on_at_other_directors_that_have_the_same_table() {
    let cluster = Cluster::start_with(Daemon::Bird, true, Carrier::PacketByTable, "");
    let Some(mut cluster) = cluster else { return };
    let mut open = OpenConnections::open(&cluster.world, 100);
    cluster.set_mode("d1", "drain");
    cluster.world.until_served_by(&["d2", "d3"]);
    assert_eq!(open.count_broken(), 0, "d1 is drained");
    cluster.set_mode("d1", "normal");
    cluster.world.until_served_by(&DIRECTORS);
    assert_eq!(open.count_broken(), 0, "d1 is there again");
    cluster.kill("d2");
    cluster.world.until_served_by(&["d1", "d3"]);
    assert_eq!(open.count_broken(), 0, "d2 was killed");
    cluster.world.unplug("d3");
    cluster.world.until_served_by(&["d1"]);
    assert_eq!(open.count_broken(), 0, "the machine of d3 is dead");
}

#[test]
fn an_address_without_quorum_is_withdrawn_where_that_is_configured() {
    let more = "without_quorum = \"withdraw\"";
    let Some(cluster) = Cluster::start(Daemon::Bird, true, more) else { return };
    cluster.set_servers("d3", "down");
    cluster.until_state("d3", "withdrawn");
    cluster.world.until_served_by(&["d1", "d2"]);
    let routes = cluster.world.show("d3", &["route", "show", "proto", "108"]);
    assert_eq!(routes, "", "no route is left");
}

#[test]
fn a_successor_keeps_the_announcements() {
    let Some(mut cluster) = Cluster::start(Daemon::Bird, true, "") else { return };
    let handover = cluster.world.folder.join("handover");
    let config = format!("handover = {handover:?}\n");
    cluster.stop("d1");
    let mut first = cluster.world.director_with("d1", &config, "");
    cluster.world.until_served_by(&DIRECTORS);

    // One that fails, after it has joined the interface, leaves the routes alone.
    let monitor = cluster.world.start("d1", "failure", Path::new("ip"), &["monitor", "route"]);
    let election =
        "[vrrp]\ninterface = \"none\"\nvirtual_router_id = 1\naddresses = [\"10.0.0.99/24\"]\n";
    let mut failing =
        cluster.world.director_with("d1", &config, &format!("metric = 101\n{election}"));
    until("the successor fails", || failing.has_ended());
    assert!(failing.log().contains("there is no interface"), "{}", failing.log());
    until("the first goes on", || first.log().contains("this process continues to serve"));
    assert_eq!(cluster.world.next_hops(ANNOUNCED), DIRECTORS);
    assert!(!monitor.log().contains("Deleted"), "{}", monitor.log());

    let traffic = Traffic::start(&cluster.world);
    let monitor = cluster.world.start("d1", "monitor", Path::new("ip"), &["monitor", "route"]);
    let second = cluster.world.director_with("d1", &config, "metric = 101\n");
    until("the first ends", || first.has_ended());
    assert!(first.log().contains("the new process serves"), "{}", first.log());
    until("the second decides", || {
        cluster.world.show("d1", &["route", "show", "proto", "108"]).contains("metric 101")
    });
    cluster.world.until_served_by(&["d2", "d3"]);
    traffic.stop().assert_all_connected();
    let deleted = monitor.log();
    let deleted: Vec<_> = deleted.lines().filter(|line| line.starts_with("Deleted")).collect();
    let is_old = |line: &&str| line.contains("metric 100 ");
    assert!(!deleted.is_empty() && deleted.iter().all(is_old), "{deleted:?}");
    drop(second);
}
