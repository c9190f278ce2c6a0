//! Virtual routers in network namespaces: their addresses, routes, events and commands.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use lvs::vrrp::{
    AuthKey, ElectionConfig, NotifyCommands, TrackEffect, VirtualRoute, VirtualRouterConfig, Vrrp,
    VrrpEvent, VrrpEventKind, VrrpEvents, VrrpStartError, VrrpState,
};

use crate::link::namespaces::skipped::report_skipped;
use crate::link::{Link, TIMEOUT, now};

const VRID: u8 = 51;
const INTERVAL: Duration = Duration::from_millis(20);

/// Returns the configuration of the virtual router in a namespace.
fn router(side: &str, priority: u8) -> VirtualRouterConfig {
    let source = if side == "a" { "10.88.0.1" } else { "10.88.0.2" };
    let election = ElectionConfig::new(VRID, source.parse().expect("an IP address"));
    VirtualRouterConfig::new("v", election.priority(priority).interval(INTERVAL))
        .address("10.88.0.100/24".parse().expect("an IP address"))
}

fn start(link: &Link, side: &str, router: VirtualRouterConfig) -> (Vrrp, VrrpEvents) {
    let vrrp = link.within(side, || Vrrp::start([router])).expect("the test runs as root");
    let events = vrrp.events();
    (vrrp, events)
}

/// Waits for the next event for which `select` returns a value.
fn next<R>(events: &mut VrrpEvents, select: impl Fn(&VrrpEvent) -> Option<R>) -> R {
    let began_at = now();
    while now() - began_at < TIMEOUT {
        let event = events.blocking_next_timeout(TIMEOUT).expect("an event arrives");
        let event = event.expect("the thread runs").expect("few events");
        if let Some(selected) = select(&event) {
            return selected;
        }
    }
    panic!("no event of that kind arrives");
}

fn becomes(events: &mut VrrpEvents, state: VrrpState) {
    next(events, |event| event.new_state().filter(|new_state| *new_state == state));
}

fn until(condition: &str, mut is_met: impl FnMut() -> bool) {
    let began_at = now();
    while !is_met() {
        assert!(now() - began_at < TIMEOUT, "the condition is not met: {condition}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn show(link: &Link, side: &str, words: &[&str]) -> String {
    let space = link.space(side);
    let output = Command::new("ip").args(["-n", &space]).args(words).output().expect("`ip`");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn routes_are_added_by_a_master_and_removed_when_it_stops() {
    let Some(link) = Link::new() else { return };
    let to = "198.51.100.0/24".parse().expect("a network");
    let shared: IpAddr = "10.88.0.100".parse().expect("an IP address");
    let route = VirtualRoute::new(to).via("10.88.0.2".parse().expect("an IP address")).metric(7);
    let router = router("a", 100).route(route.source(shared));
    let (vrrp, mut events) = start(&link, "a", router);
    becomes(&mut events, VrrpState::Master);
    let routes = show(&link, "a", &["route", "show", "198.51.100.0/24"]);
    assert!(routes.contains("via 10.88.0.2 dev v"), "{routes}");
    assert!(routes.contains("src 10.88.0.100 metric 7"), "{routes}");
    vrrp.stop();
    assert_eq!(show(&link, "a", &["route", "show", "198.51.100.0/24"]), "");
    assert!(!link.has("a", shared));
}

#[test]
fn an_address_that_is_removed_by_hand_is_added_again() {
    let Some(link) = Link::new() else { return };
    let shared = "10.88.0.100".parse().expect("an IP address");
    let (_vrrp, mut events) = start(&link, "a", router("a", 100));
    becomes(&mut events, VrrpState::Master);
    let lifetime = show(&link, "a", &["addr", "show", "dev", "v"]);
    assert!(lifetime.contains("valid_lft 1sec"), "{lifetime}");
    link.ip(&["-n", &link.space("a"), "addr", "del", "10.88.0.100/24", "dev", "v"]);
    until("the address is there again", || link.has("a", shared));
}

#[test]
fn a_master_that_loses_its_source_address_enters_state_fault() {
    let Some(link) = Link::new() else { return };
    let (a, mut events) = start(&link, "a", router("a", 150));
    becomes(&mut events, VrrpState::Master);
    let (_b, mut others) = start(&link, "b", router("b", 100));
    link.ip(&["-n", &link.space("a"), "addr", "del", "10.88.0.1/24", "dev", "v"]);
    let tracked = next(&mut events, |event| match &event.kind {
        VrrpEventKind::TrackChanged { name, is_up } => Some((name.clone(), *is_up)),
        _ => None,
    });
    assert_eq!(tracked, ("source address".into(), false));
    becomes(&mut events, VrrpState::Fault);
    becomes(&mut others, VrrpState::Master);
    link.ip(&["-n", &link.space("a"), "addr", "add", "10.88.0.1/24", "dev", "v"]);
    becomes(&mut events, VrrpState::Master);
    assert_eq!(
        a.status().expect("the thread replies").routers[0].transitions[&VrrpState::Fault],
        1
    );
}

#[test]
fn unsigned_and_forged_advertisements_are_refused() {
    let Some(link) = Link::new() else { return };
    let key = |byte| AuthKey::new(1, &[byte; 32]).expect("long enough");
    let (a, mut events) = start(&link, "a", router("a", 100).key(key(1)));
    becomes(&mut events, VrrpState::Master);
    for (other, label) in [(router("b", 200), "unsigned"), (router("b", 200).key(key(2)), "forged")]
    {
        let (_b, mut others) = start(&link, "b", other);
        becomes(&mut others, VrrpState::Master);
        let refusal = next(&mut events, |event| match &event.kind {
            VrrpEventKind::AdvertRefused { source, reason } => Some(format!("{source}: {reason}")),
            _ => None,
        });
        assert!(refusal.starts_with("10.88.0.2: "), "{refusal}");
        assert!(a.is_master());
        let status = a.status().expect("the thread replies");
        assert!(status.routers[0].adverts.refused[label] > 0, "{status:?}");
    }
    let (_b, mut others) = start(&link, "b", router("b", 200).key(key(1)));
    becomes(&mut others, VrrpState::Master);
    becomes(&mut events, VrrpState::Backup);
    // A router that has just started is accepted, and so is its resignation.
    drop(_b);
    becomes(&mut events, VrrpState::Master);
}

#[test]
fn address_mismatches_and_address_conflicts_are_reported() {
    let Some(link) = Link::new() else { return };
    let (_a, mut events) = start(&link, "a", router("a", 150));
    becomes(&mut events, VrrpState::Master);
    // At least one advertisement arrives, at the latest when the router resigns.
    let other = router("b", 200).address("10.88.0.101/24".parse().expect("an IP address"));
    let (b, _) = start(&link, "b", other);
    let addresses = next(&mut events, |event| match &event.kind {
        VrrpEventKind::AddressMismatch { addresses, .. } => Some(addresses.clone()),
        _ => None,
    });
    assert_eq!(addresses.len(), 2);
    drop(b);
    becomes(&mut events, VrrpState::Master);
    // The address is added to the other machine by hand, and its kernel announces the address.
    let space = link.space("b");
    let notify = "echo 1 > /proc/sys/net/ipv4/conf/v/arp_notify";
    link.ip(&["netns", "exec", &space, "sh", "-c", notify]);
    link.ip(&["-n", &space, "addr", "add", "10.88.0.100/24", "dev", "v"]);
    link.ip(&["-n", &space, "link", "set", "v", "down"]);
    link.ip(&["-n", &space, "link", "set", "v", "up"]);
    let address = next(&mut events, |event| match &event.kind {
        VrrpEventKind::AddressConflict { address, .. } => Some(*address),
        _ => None,
    });
    assert_eq!(address.to_string(), "10.88.0.100");
}

#[test]
fn several_virtual_routers_are_master_together() {
    let Some(link) = Link::new() else { return };
    let v6 =
        ElectionConfig::new(VRID, "fe80::1".parse().expect("an IP address")).interval(INTERVAL);
    let v6 = VirtualRouterConfig::new("v", v6)
        .name("51@v/v6")
        .address("fe80::100/64".parse().expect("an IP address"))
        .address("fd00:88::100/64".parse().expect("an IP address"));
    let vrrp =
        link.within("a", || Vrrp::start([router("a", 100), v6])).expect("the test runs as root");
    until("all virtual routers are master", || vrrp.is_master());
    for address in ["10.88.0.100", "fe80::100", "fd00:88::100"] {
        assert!(link.has("a", address.parse().expect("an IP address")), "{address}");
    }
    vrrp.stop();
    for address in ["10.88.0.100", "fe80::100", "fd00:88::100"] {
        assert!(!link.has("a", address.parse().expect("an IP address")), "{address}");
    }
}

#[test]
fn a_virtual_mac_has_the_value_of_the_rfc() {
    let Some(link) = Link::new() else { return };
    let started = link.within("a", || Vrrp::start([router("a", 100).virtual_mac(true)]));
    let vrrp = match started {
        Err(VrrpStartError::Macvlan { interface, source }) => {
            report_skipped(format!("the kernel has no macvlan: {source}"));
            assert_eq!(interface, "v");
            return;
        }
        started => started.expect("the test runs as root"),
    };
    until("the virtual router is master", || vrrp.is_master());
    let device = show(&link, "a", &["addr", "show", "dev", "vrrp.51"]);
    assert!(device.contains("00:00:5e:00:01:33") && device.contains("10.88.0.100/24"), "{device}");
    vrrp.stop();
    assert_eq!(show(&link, "a", &["addr", "show", "dev", "vrrp.51"]), "");
}

#[test]
fn notify_commands_get_each_new_state() {
    let Some(link) = Link::new() else { return };
    let (script, output) = (link.folder.join("notify.sh"), link.folder.join("output"));
    fs::write(&script, format!("#!/bin/sh\necho \"$@\" >> {}\n", output.display()))
        .expect("the file is written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("the file is written");
    let (vrrp, mut events) = start(&link, "a", router("a", 100).name("web"));
    vrrp.run_on_transition(NotifyCommands::new().on_any_state([&script]));
    becomes(&mut events, VrrpState::Master);
    vrrp.stop();
    let expected = "INSTANCE web MASTER 100\nINSTANCE web STOP 100\n";
    let lines = || fs::read_to_string(&output).unwrap_or_default();
    until("both commands have run", || lines().ends_with(expected));
}

#[test]
fn each_virtual_router_runs_its_own_commands_from_the_first_state_on() {
    let Some(link) = Link::new() else { return };
    let output = link.folder.join("output");
    let command = |word: &str| {
        [
            "sh".to_owned(),
            "-c".to_owned(),
            format!("echo {word} $* >> {}", output.display()),
            "x".into(),
        ]
    };
    let v6 =
        ElectionConfig::new(VRID, "fe80::1".parse().expect("an IP address")).interval(INTERVAL);
    let v6 = VirtualRouterConfig::new("v", v6)
        .name("six")
        .address("fe80::100/64".parse().expect("an IP address"))
        .excluded_address("10.88.0.99/24".parse().expect("an address"));
    let notify = NotifyCommands::new()
        .router("four")
        .on_any_state(command("any"))
        .on_state(VrrpState::Master, command("master"))
        .on_state(VrrpState::Backup, command("backup"));
    let routers = [router("a", 100).name("four"), v6];
    let vrrp = link.within("a", || Vrrp::start_with_notify(routers, [notify]));
    let vrrp = vrrp.expect("the test runs as root");
    until("all virtual routers are master", || vrrp.is_master());
    assert!(link.has("a", "10.88.0.99".parse().expect("an IP address")), "the excluded address");
    vrrp.stop();
    assert!(!link.has("a", "10.88.0.99".parse().expect("an IP address")), "it is released");
    let lines = fs::read_to_string(&output).expect("stopping waits for the commands");
    let expected = "backup\nany INSTANCE four BACKUP 100\nmaster\nany INSTANCE four MASTER 100\n\
        any INSTANCE four STOP 100\n";
    assert_eq!(lines, expected);
}

#[test]
fn a_change_of_the_configuration_changes_nothing_else() {
    let Some(link) = Link::new() else { return };
    let ip = |text: &str| text.parse::<IpAddr>().expect("an IP address");
    let with = |router: VirtualRouterConfig, address: &str| {
        router.address(address.parse().expect("an address"))
    };
    let (vrrp, mut events) = start(&link, "a", with(router("a", 100), "10.88.0.101/24"));
    becomes(&mut events, VrrpState::Master);
    let changed = with(router("a", 90), "10.88.0.102/24").track("t", TrackEffect::Minus(20));
    assert!(vrrp.reconfigure([changed.clone()], []).expect("a valid change"));
    let priority = || vrrp.status().expect("the thread replies").routers[0].priority;
    until("the priority has changed", || priority() == 90);
    assert!(link.has("a", ip("10.88.0.100")) && link.has("a", ip("10.88.0.102")));
    assert!(!link.has("a", ip("10.88.0.101")));
    vrrp.set_track("t", false).expect("the item is tracked");
    until("the item counts", || priority() == 70);
    // The item stays down, and counts with another weight.
    let heavier = with(router("a", 90), "10.88.0.102/24").track("t", TrackEffect::Minus(30));
    assert!(vrrp.reconfigure([heavier], []).expect("a valid change"));
    until("the weight has changed", || priority() == 60);
    assert!(vrrp.is_master());
    // An address that the machine has, and another virtual router: nothing changes.
    let used = with(router("a", 1), "10.88.0.1/24");
    let error = vrrp.reconfigure([used], []).expect_err("the address is in use");
    assert!(matches!(error, VrrpStartError::AddressInUse { .. }), "{error}");
    assert!(!vrrp.reconfigure([changed.clone().peer(ip("10.88.0.9"))], []).expect("valid"));
    assert!(
        !vrrp
            .reconfigure([changed.clone(), changed.name("other")], [])
            .is_ok_and(|is_same| is_same)
    );
    assert_eq!(priority(), 60);
    vrrp.stop();
    let events = std::iter::from_fn(|| events.blocking_next());
    let states: Vec<_> =
        events.filter_map(|event| event.expect("few events").new_state()).collect();
    assert_eq!(states, [VrrpState::Init], "the router was master all the time");
    assert!(!link.has("a", ip("10.88.0.102")));
}

#[test]
fn connections_of_an_address_that_is_given_away_are_reset() {
    let Some(link) = Link::new() else { return };
    for (resets, expected) in [(true, Some(ErrorKind::ConnectionReset)), (false, None)] {
        let (vrrp, mut events) = start(&link, "a", router("a", 100).reset_connections(resets));
        becomes(&mut events, VrrpState::Master);
        let listener = link.within("a", || TcpListener::bind("10.88.0.100:0")).expect("an address");
        let address = listener.local_addr().expect("the listener is bound");
        let mut client = link.within("b", || TcpStream::connect(address)).expect("a connects");
        let (server, _) = listener.accept().expect("a connection");
        vrrp.stop();
        client.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let end = client.read(&mut [0]).expect_err("nothing is sent").kind();
        match expected {
            Some(kind) => assert_eq!(end, kind),
            None => assert_eq!(end, ErrorKind::WouldBlock, "the connection hangs"),
        }
        drop(server);
    }
}

#[test]
fn the_error_of_a_start_names_the_fault() {
    let start =
        |interface: &str, source: &str, change: fn(VirtualRouterConfig) -> VirtualRouterConfig| {
            let election = ElectionConfig::new(VRID, source.parse().expect("an IP address"));
            let address = "10.88.0.100".parse().expect("an IP address");
            Vrrp::start([change(VirtualRouterConfig::new(interface, election).address(address))])
                .map(drop)
                .expect_err("the start fails")
        };
    let v6_peer = "fe80::1".parse::<IpAddr>().expect("an IP address");
    let unchanged = |router| router;
    assert!(matches!(
        start("v", "10.88.0.2", |router| router.peer("fe80::1".parse().expect("an IP address"))),
        VrrpStartError::PeerFamily(peer, _) if peer == v6_peer
    ));
    assert!(matches!(start("v", "fe80::2", unchanged), VrrpStartError::Config { .. }));
    assert!(matches!(Vrrp::start([]).map(drop), Err(VrrpStartError::NoVirtualRouters)));
    let error = start("nosuch", "10.88.0.2", unchanged);
    assert!(matches!(error, VrrpStartError::UnknownInterface(name) if name == "nosuch"));
    let Some(link) = Link::new() else {
        let is_root = rustix::process::getuid().is_root();
        if let Some(interface) = ethernet().filter(|_| !is_root) {
            let error = start(&interface, "127.0.0.1", unchanged).to_string();
            assert!(error.ends_with("run as root, or with CAP_NET_ADMIN"), "{error}");
        }
        return;
    };
    link.within("b", || {
        let error = start("v", "192.0.2.9", unchanged);
        assert!(matches!(error, VrrpStartError::SourceNotLocal(_)), "{error:?}");
        link.ip(&["-n", &link.space("b"), "addr", "add", "10.88.0.100/24", "dev", "v"]);
        let error = start("v", "10.88.0.2", unchanged);
        assert!(matches!(error, VrrpStartError::AddressInUse { .. }), "{error:?}");
    });
}

/// Returns an Ethernet interface of this machine, if there is one.
fn ethernet() -> Option<String> {
    let interfaces = fs::read_dir("/sys/class/net").ok()?.flatten();
    let mut names = interfaces.map(|entry| entry.path());
    let found = names
        .find(|path| fs::read_to_string(path.join("type")).is_ok_and(|kind| kind.trim() == "1"))?;
    Some(found.file_name()?.to_str()?.to_owned())
}
