//! What a virtual router has on its machine, and what it hears there.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use lvs::vrrp::{
    AuthKey, ElectionConfig, NotifyCommands, VirtualRoute, VirtualRouterConfig, Vrrp, VrrpEvent,
    VrrpEventKind, VrrpEvents, VrrpStartError, VrrpState,
};

use crate::link::{Link, PATIENCE, now};

const ROUTER: u8 = 51;
const INTERVAL: Duration = Duration::from_millis(20);

/// The router of a machine, with the address that all share.
fn router(side: &str, priority: u8) -> VirtualRouterConfig {
    let source = if side == "a" { "10.88.0.1" } else { "10.88.0.2" };
    let election = ElectionConfig::new(ROUTER, source.parse().expect("an address"));
    VirtualRouterConfig::new("v", election.priority(priority).interval(INTERVAL))
        .address("10.88.0.100/24".parse().expect("an address"))
}

fn start(link: &Link, side: &str, router: VirtualRouterConfig) -> (Vrrp, VrrpEvents) {
    let vrrp = link.within(side, || Vrrp::start([router])).expect("as root");
    let events = vrrp.events();
    (vrrp, events)
}

/// The next event that says something.
fn next<R>(events: &mut VrrpEvents, says: impl Fn(&VrrpEvent) -> Option<R>) -> R {
    let begun = now();
    while now() - begun < PATIENCE {
        let event = events.recv_timeout(PATIENCE).expect("it runs");
        if let Some(said) = event.as_ref().and_then(&says) {
            return said;
        }
    }
    panic!("nothing of that kind happens");
}

fn becomes(events: &mut VrrpEvents, state: VrrpState) {
    next(events, |event| event.new_state().filter(|became| *became == state));
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = now();
    while !is_so() {
        assert!(now() - begun < PATIENCE, "not so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn show(link: &Link, side: &str, words: &[&str]) -> String {
    let space = link.space(side);
    let output = Command::new("ip").args(["-n", &space]).args(words).output().expect("`ip`");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_master_has_its_routes_and_a_backup_has_not() {
    let Some(link) = Link::new() else { return };
    let to = "198.51.100.0/24".parse().expect("a network");
    let shared: IpAddr = "10.88.0.100".parse().expect("an address");
    let route = VirtualRoute::new(to).via("10.88.0.2".parse().expect("an address")).metric(7);
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
fn an_address_that_somebody_takes_away_comes_back() {
    let Some(link) = Link::new() else { return };
    let shared = "10.88.0.100".parse().expect("an address");
    let (_vrrp, mut events) = start(&link, "a", router("a", 100));
    becomes(&mut events, VrrpState::Master);
    let lifetime = show(&link, "a", &["addr", "show", "dev", "v"]);
    assert!(lifetime.contains("valid_lft 1sec"), "{lifetime}");
    link.ip(&["-n", &link.space("a"), "addr", "del", "10.88.0.100/24", "dev", "v"]);
    until("it is there again", || link.has("a", shared));
}

#[test]
fn one_that_loses_the_address_it_sends_from_gives_way() {
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
    assert_eq!(a.status().expect("it answers").routers[0].transitions[&VrrpState::Fault], 1);
}

#[test]
fn whoever_has_no_key_or_another_is_not_believed() {
    let Some(link) = Link::new() else { return };
    let key = |byte| AuthKey::new(1, &[byte; 32]).expect("long enough");
    let (a, mut events) = start(&link, "a", router("a", 100).key(key(1)));
    becomes(&mut events, VrrpState::Master);
    for (other, reason) in
        [(router("b", 200), "unsigned"), (router("b", 200).key(key(2)), "forged")]
    {
        let (_b, mut others) = start(&link, "b", other);
        becomes(&mut others, VrrpState::Master);
        let why = next(&mut events, |event| match &event.kind {
            VrrpEventKind::AdvertRefused { source, why } => Some(format!("{source}: {why}")),
            _ => None,
        });
        assert!(why.starts_with("10.88.0.2: "), "{why}");
        assert!(a.is_master());
        let view = a.status().expect("it answers");
        assert!(view.routers[0].adverts.refused[reason] > 0, "{view:?}");
    }
    let (_b, mut others) = start(&link, "b", router("b", 200).key(key(1)));
    becomes(&mut others, VrrpState::Master);
    becomes(&mut events, VrrpState::Backup);
    // One that has only just come is believed, and so is its farewell.
    drop(_b);
    becomes(&mut events, VrrpState::Master);
}

#[test]
fn one_that_has_other_addresses_and_one_that_takes_no_part_are_noticed() {
    let Some(link) = Link::new() else { return };
    let (_a, mut events) = start(&link, "a", router("a", 150));
    becomes(&mut events, VrrpState::Master);
    // Is heard once, at the latest with its farewell.
    let other = router("b", 200).address("10.88.0.101/24".parse().expect("an address"));
    let (b, _) = start(&link, "b", other);
    let addresses = next(&mut events, |event| match &event.kind {
        VrrpEventKind::AddressMismatch { addresses, .. } => Some(addresses.clone()),
        _ => None,
    });
    assert_eq!(addresses.len(), 2);
    drop(b);
    becomes(&mut events, VrrpState::Master);
    // Somebody puts the address on a machine by hand, which announces it.
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
fn several_are_master_together() {
    let Some(link) = Link::new() else { return };
    let six =
        ElectionConfig::new(ROUTER, "fe80::1".parse().expect("an address")).interval(INTERVAL);
    let six = VirtualRouterConfig::new("v", six)
        .name("51@v/v6")
        .address("fe80::100/64".parse().expect("an address"))
        .address("fd00:88::100/64".parse().expect("an address"));
    let vrrp = link.within("a", || Vrrp::start([router("a", 100), six])).expect("as root");
    until("they are master", || vrrp.is_master());
    for address in ["10.88.0.100", "fe80::100", "fd00:88::100"] {
        assert!(link.has("a", address.parse().expect("an address")), "{address}");
    }
    vrrp.stop();
    for address in ["10.88.0.100", "fe80::100", "fd00:88::100"] {
        assert!(!link.has("a", address.parse().expect("an address")), "{address}");
    }
}

#[test]
fn a_virtual_mac_is_that_of_the_rfc() {
    let Some(link) = Link::new() else { return };
    let started = link.within("a", || Vrrp::start([router("a", 100).virtual_mac(true)]));
    let vrrp = match started {
        Err(VrrpStartError::Macvlan { interface, source }) => {
            println!("skipped: no macvlan here: {source}");
            assert_eq!(interface, "v");
            return;
        }
        started => started.expect("as root"),
    };
    until("it is master", || vrrp.is_master());
    let device = show(&link, "a", &["addr", "show", "dev", "vrrp.51"]);
    assert!(device.contains("00:00:5e:00:01:33") && device.contains("10.88.0.100/24"), "{device}");
    vrrp.stop();
    assert_eq!(show(&link, "a", &["addr", "show", "dev", "vrrp.51"]), "");
}

#[test]
fn commands_are_told_what_becomes_of_it() {
    let Some(link) = Link::new() else { return };
    let (script, told) = (link.folder.join("notify.sh"), link.folder.join("told"));
    fs::write(&script, format!("#!/bin/sh\necho \"$@\" >> {}\n", told.display())).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("a file");
    let (vrrp, mut events) = start(&link, "a", router("a", 100).name("web"));
    vrrp.run_on_transition(NotifyCommands::new().on_any_state([&script]));
    becomes(&mut events, VrrpState::Master);
    vrrp.stop();
    let expected = "INSTANCE web MASTER 100\nINSTANCE web STOP 100\n";
    let said = || fs::read_to_string(&told).unwrap_or_default();
    until("both are told", || said().ends_with(expected));
}

#[test]
fn what_is_missing_is_named() {
    let start =
        |interface: &str, source: &str, change: fn(VirtualRouterConfig) -> VirtualRouterConfig| {
            let election = ElectionConfig::new(ROUTER, source.parse().expect("an address"));
            let address = "10.88.0.100".parse().expect("an address");
            Vrrp::start([change(VirtualRouterConfig::new(interface, election).address(address))])
                .map(drop)
                .expect_err("refused")
        };
    let six = "fe80::1".parse::<IpAddr>().expect("an address");
    let as_it_is = |router| router;
    assert!(matches!(
        start("v", "10.88.0.2", |router| router.peer("fe80::1".parse().expect("an address"))),
        VrrpStartError::PeerFamily(peer, _) if peer == six
    ));
    assert!(matches!(start("v", "fe80::2", as_it_is), VrrpStartError::Config { .. }));
    assert!(matches!(Vrrp::start([]).map(drop), Err(VrrpStartError::NoVirtualRouters)));
    let error = start("nosuch", "10.88.0.2", as_it_is);
    assert!(matches!(error, VrrpStartError::UnknownInterface(name) if name == "nosuch"));
    let Some(link) = Link::new() else {
        let is_root = rustix::process::getuid().is_root();
        if let Some(interface) = ethernet().filter(|_| !is_root) {
            let error = start(&interface, "127.0.0.1", as_it_is).to_string();
            assert!(error.ends_with("that takes root, or CAP_NET_ADMIN"), "{error}");
        }
        return;
    };
    link.within("b", || {
        let error = start("v", "192.0.2.9", as_it_is);
        assert!(matches!(error, VrrpStartError::SourceNotLocal(_)), "{error:?}");
        link.ip(&["-n", &link.space("b"), "addr", "add", "10.88.0.100/24", "dev", "v"]);
        let error = start("v", "10.88.0.2", as_it_is);
        assert!(matches!(error, VrrpStartError::AddressInUse { .. }), "{error:?}");
    });
}

/// Any interface of this machine that could have virtual routers.
fn ethernet() -> Option<String> {
    let interfaces = fs::read_dir("/sys/class/net").ok()?.flatten();
    let mut names = interfaces.map(|it| it.path());
    let found = names
        .find(|path| fs::read_to_string(path.join("type")).is_ok_and(|kind| kind.trim() == "1"))?;
    Some(found.file_name()?.to_str()?.to_owned())
}
