//! Announcers and the kernel, in network namespaces of the tests; they need root.

use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::*;

#[path = "../../tests/common/namespaces.rs"]
mod namespaces;

const V4: &str = "203.0.113.10";
const V6: &str = "2001:db8::10";

/// Runs a test in a network namespace of its own.
fn run_in_namespace(test: impl FnOnce() + Send) {
    if !namespaces::can_run(&["ip"]) {
        return;
    }
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            // For this thread, and those that it starts.
            unshare(CloneFlags::CLONE_NEWNET).expect("as root");
            ip("link set lo up");
            test();
        });
        run.join().expect("the test passes");
    });
}

fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().expect("`ip`");
    assert!(output.status.success(), "ip {words}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns the metrics with which an address is announced.
fn metrics(address: &str) -> Vec<u32> {
    let family = if address.contains(':') { "-6" } else { "-4" };
    let routes = ip(&format!("{family} route show {address} proto 108 table main"));
    let words: Vec<_> = routes.split_whitespace().collect();
    let metrics = words.windows(2).filter(|pair| pair[0] == "metric");
    metrics.map(|pair| pair[1].parse().expect("a number")).collect()
}

fn has_local_route(address: &str) -> bool {
    ip(&format!("route get {address}")).starts_with("local")
}

fn config() -> AnnouncerConfig {
    AnnouncerConfig::new().address(address(V4)).address(address(V6))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn set_health(announcer: &Announcer, is_healthy: bool) {
    for own in [V4, V6] {
        announcer.set_health(address(own), is_healthy);
    }
    // The thread replies when it has done what was asked before.
    announcer.status().expect("the thread runs");
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        // The thread looks at its routes each second, by the system's clock.
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 10 s");
}

#[test]
fn routes_follow_health_and_modes_and_end_with_the_announcer() {
    run_in_namespace(|| {
        let announcer =
            Announcer::start(config().recovery_delay(Duration::ZERO)).expect("it starts");
        assert_eq!((metrics(V4), metrics(V6)), (vec![], vec![]), "nothing is known yet");
        set_health(&announcer, true);
        assert_eq!((metrics(V4), metrics(V6)), (vec![100], vec![100]));
        assert!(has_local_route(V4) && has_local_route(V6));
        announcer.set_mode(AnnounceMode::Drain).expect("the thread runs");
        assert_eq!((metrics(V4), metrics(V6)), (vec![200], vec![200]));
        set_health(&announcer, false);
        assert_eq!((metrics(V4), metrics(V6)), (vec![300], vec![300]));
        set_health(&announcer, true);
        announcer.set_mode(AnnounceMode::Withdraw).expect("the thread runs");
        assert_eq!((metrics(V4), metrics(V6)), (vec![], vec![]));
        assert!(has_local_route(V4) && has_local_route(V6), "open connections go on");
        announcer.stop();
        assert_eq!(ip("route show table all proto 108"), "");
        assert_eq!(ip("-6 route show table all proto 108"), "");
        assert!(announcer.status().is_none());
    });
}

#[test]
fn what_somebody_else_removes_comes_back_and_is_told() {
    run_in_namespace(|| {
        let announcer = Announcer::start(config()).expect("it starts");
        let mut events = announcer.events();
        set_health(&announcer, true);
        ip(&format!("route del {V4} proto 108"));
        until("the route is back", || metrics(V4) == [100]);
        ip(&format!("-6 route del {V6} proto 108 table local"));
        until("the local route is back", || has_local_route(V6));
        ip("link set lvs-announce down");
        until("the interface is up", || metrics(V4) == [100] && metrics(V6) == [100]);
        ip("link del lvs-announce");
        until("the interface is back", || {
            let link = Command::new("ip").args(["link", "show", "lvs-announce"]).output();
            link.expect("`ip`").status.success() && metrics(V4) == [100] && metrics(V6) == [100]
        });
        let mut kinds = Vec::new();
        while let Some(Ok(event)) = events.try_next() {
            kinds.push((event.is_alert(), event.kind));
        }
        let count = |kind| kinds.iter().filter(|(is_alert, it)| *is_alert && *it == kind).count();
        // The route, the local route, and those of both families by the interface that was down.
        assert_eq!(count(AnnounceEventKind::RouteRestored), 4, "{kinds:?}");
        assert_eq!(count(AnnounceEventKind::InterfaceRestored), 1, "{kinds:?}");
        let restored: Vec<_> = announcer.status().expect("the thread runs").addresses;
        assert_eq!(restored.iter().map(|it| it.restored).sum::<u64>(), 4);
    });
}

#[test]
fn a_route_of_somebody_else_with_the_same_metric_is_no_announcement() {
    run_in_namespace(|| {
        ip("link add other type veth peer name end");
        ip("link set other up");
        ip("link set end up");
        ip(&format!("route add {V4}/32 dev other metric 100"));
        ip(&format!("-6 route add {V6}/128 dev other metric 100"));
        let announcer = Announcer::start(config()).expect("it starts");
        set_health(&announcer, true);
        assert_eq!((metrics(V4), metrics(V6)), (vec![100], vec![100]));
        announcer.stop();
        assert!(ip(&format!("route show {V4}")).contains("dev other"), "it is left alone");
        assert!(ip(&format!("-6 route show {V6}")).contains("dev other"), "it is left alone");
    });
}

#[test]
fn the_kernel_selects_the_routes_of_the_interface() {
    run_in_namespace(|| {
        ip("link add other type veth peer name end");
        ip("link set other up");
        ip("link set end up");
        for n in 0..20 {
            ip(&format!("route add 198.51.100.{n}/32 dev other"));
            ip(&format!("-6 route add 2001:db8:1::{n}/128 dev other"));
        }
        let announcer = Announcer::start(config()).expect("it starts");
        set_health(&announcer, true);
        let mut netlink = crate::rtnetlink::RtnetlinkSocket::open().expect("a socket");
        netlink.filter_lists();
        let interface = netlink.find_interface(ANNOUNCE_INTERFACE).expect("a list");
        let index = interface.expect("the interface").index;
        let routes = netlink.main_routes(index).expect("a list");
        // The announcements, and what the kernel has of the interface itself.
        assert!((2..8).contains(&routes.len()), "{routes:?}");
        let mut found: Vec<_> = netlink.announcements(index).expect("a list");
        found.sort_by_key(|route| route.address);
        let addresses: Vec<_> = found.iter().map(|route| (route.address, route.protocol)).collect();
        assert_eq!(addresses, [(address(V4), 108), (address(V6), 108)]);
    });
}

#[test]
fn an_address_of_an_interface_is_refused() {
    run_in_namespace(|| {
        for own in [V4, V6] {
            ip(&format!("addr add {own} dev lo"));
            let error = Announcer::start(config()).expect_err("it is refused");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("address {own} is on the interface of index 1")),
                "{error}"
            );
            ip(&format!("addr flush dev lo to {own}"));
        }
        let announcer = Announcer::start(AnnouncerConfig::new().address(address(V4)));
        let announcer = announcer.expect("it starts");
        set_health(&announcer, true);
        ip(&format!("addr add {V6} dev lo"));
        let error = announcer.reconfigure(config()).expect_err("it is refused");
        assert!(error.to_string().starts_with(&format!("address {V6} is on")), "{error}");
        assert_eq!(metrics(V4), [100], "nothing has changed");
    });
}

#[test]
fn a_removed_address_is_local_for_some_time_and_another_protocol_number_is_taken() {
    run_in_namespace(|| {
        let announcer = Announcer::start(config()).expect("it starts");
        set_health(&announcer, true);
        let only_v4 = AnnouncerConfig::new().address(address(V4));
        let for_long = only_v4.clone().removal_delay(Duration::from_secs(3600));
        announcer.reconfigure(for_long).expect("valid");
        assert_eq!((metrics(V4), metrics(V6)), (vec![100], vec![]));
        assert!(has_local_route(V6));
        announcer.reconfigure(config()).expect("valid");
        assert!(metrics(V6).is_empty(), "the health of an address that comes back is not known");
        set_health(&announcer, true);
        assert_eq!(metrics(V6), [100]);
        announcer.reconfigure(only_v4.clone().removal_delay(Duration::ZERO)).expect("valid");
        let route = Command::new("ip").args(["route", "get", V6]).output().expect("`ip`");
        assert!(!route.status.success(), "{route:?}");
        announcer.reconfigure(only_v4.route_protocol(109).metric(50)).expect("valid");
        assert!(metrics(V4).is_empty());
        assert!(ip("route show proto 109").contains("metric 50"));
    });
}

#[cfg(feature = "director")]
#[test]
fn a_successor_finds_the_routes_and_the_interface_stays_while_one_has_it() {
    run_in_namespace(|| {
        let other = "203.0.113.11";
        let first = Announcer::start(config().address(address(other))).expect("it starts");
        set_health(&first, true);
        first.set_health(address(other), true);
        first.pause(true);
        first.set_mode(AnnounceMode::Withdraw).expect("the thread runs");
        assert_eq!(metrics(V4), [100], "paused, nothing changes");
        let second = Announcer::start(config().metric(50)).expect("it starts");
        assert!(second.status().is_some());
        assert_eq!(metrics(V4), [100], "the health is not known yet");
        set_health(&second, true);
        assert_eq!((metrics(V4), metrics(V6)), (vec![50], vec![50]));
        assert_eq!(metrics(other), [100], "it is not the second's");
        second.take_over();
        assert!(second.status().is_some());
        assert_eq!((metrics(V4), metrics(other)), (vec![50], vec![]));
        assert!(has_local_route(other), "its connections may end");
        first.leave();
        // Another one, with another protocol number, and no health yet.
        let third = Announcer::start(config().route_protocol(109).removal_delay(Duration::ZERO));
        let third = third.expect("it starts");
        third.pause(true);
        set_health(&third, true);
        assert_eq!(metrics(V4), [50], "paused, it changes nothing");
        second.pause(true);
        assert!(second.status().is_some());
        third.take_over();
        second.leave();
        until("the routes have the other number", || {
            let routes = |family: &str| ip(&format!("{family} route show proto 109 table main"));
            metrics(V4).is_empty()
                && metrics(V6).is_empty()
                && routes("-4").contains("metric 100")
                && routes("-6").contains("metric 100")
        });
        third.stop();
        assert_eq!(ip("route show table all proto 108"), "");
    });
}
