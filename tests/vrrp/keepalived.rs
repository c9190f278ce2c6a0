//! Beside keepalived, each in each role, on a link of their own between two network namespaces.
//!
//! Needs root, `ip` and keepalived; skipped elsewhere, with the reason.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use lvs::vrrp::{
    ElectionConfig, VirtualRouterConfig, Vrrp, VrrpEvent, VrrpEvents, VrrpState, VrrpVersion,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::link::{Link, PATIENCE, namespaces, now};

const ROUTER: u8 = 51;

/// How the two talk.
#[derive(Clone, Copy)]
struct Talk {
    version: VrrpVersion,
    interval: Duration,
    is_v6: bool,
    unicast: bool,
}

impl Talk {
    fn addresses(self) -> [IpAddr; 3] {
        let texts = match (self.is_v6, self.unicast) {
            (false, _) => ["10.88.0.1", "10.88.0.2", "10.88.0.100"],
            (true, false) => ["fe80::1", "fe80::2", "fe80::100"],
            (true, true) => ["fd00:88::1", "fd00:88::2", "fe80::100"],
        };
        texts.map(|text| text.parse().expect("an address"))
    }

    fn keepalived(self, priority: u8) -> String {
        let [theirs, ours, shared] = self.addresses();
        let version = if self.version == VrrpVersion::V2 { 2 } else { 3 };
        let peers = match self.unicast {
            true => format!("unicast_src_ip {theirs}\n unicast_peer {{\n {ours}\n }}"),
            false => String::new(),
        };
        let (interval, length) = (self.interval.as_secs_f64(), if self.is_v6 { 64 } else { 24 });
        format!(
            "global_defs {{\n vrrp_version {version}\n vrrp_rt_priority 10\n }}\nvrrp_instance V {{\n interface v\n \
             virtual_router_id {ROUTER}\n priority {priority}\n advert_int {interval}\n {peers}\n \
             virtual_ipaddress {{\n {shared}/{length}\n }}\n}}\n"
        )
    }
}

/// A keepalived that runs.
struct Keepalived {
    process: Child,
    log: PathBuf,
    /// Where the number of the process stands that does the work.
    child: PathBuf,
}

impl Keepalived {
    fn start(link: &Link, talk: Talk, priority: u8) -> Self {
        let file = |name: &str| link.folder.join(name);
        fs::write(file("conf"), talk.keepalived(priority)).expect("a file");
        let log = File::create(file("log")).expect("a file");
        let process = Command::new("ip")
            .args(["netns", "exec", &link.space("a"), "keepalived", "-n", "-l", "-P", "-f"])
            .arg(file("conf"))
            .arg("-p")
            .arg(file("pid"))
            .arg("-r")
            .arg(file("vrrp.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("keepalived, of the package of that name");
        Self { process, log: file("log"), child: file("vrrp.pid") }
    }

    /// Waits until it has said something so often.
    fn says(&self, what: &str, times: usize) {
        let begun = now();
        loop {
            let log = fs::read_to_string(&self.log).expect("a file");
            if log.matches(what).count() >= times {
                return;
            }
            assert!(now() - begun < PATIENCE, "it does not say {what:?} {times} times:\n{log}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills what has the addresses, before its parent can tell it to say farewell.
    fn kill(&mut self) {
        let child = fs::read_to_string(&self.child).unwrap_or_default();
        if let Some(child) = child.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Where nobody reaps orphans, the number stays taken.
        let _ = fs::remove_file(&self.child);
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ours, in the other namespace.
struct Ours {
    vrrp: Vrrp,
    events: VrrpEvents,
}

impl Ours {
    fn start(link: &Link, talk: Talk, priority: u8) -> Self {
        let [theirs, ours, shared] = talk.addresses();
        let election = ElectionConfig::new(ROUTER, ours)
            .version(talk.version)
            .priority(priority)
            .interval(talk.interval);
        let mut router = VirtualRouterConfig::new("v", election).address(shared.into());
        if talk.unicast {
            router = router.peer(theirs);
        }
        let vrrp = link.within("b", || Vrrp::start([router])).expect("as root");
        Self { events: vrrp.events(), vrrp }
    }

    fn becomes(&mut self, state: VrrpState) {
        let begun = now();
        while now() - begun < PATIENCE {
            let event = self.events.recv_timeout(PATIENCE).expect("it runs");
            if let Some(became) = event.as_ref().and_then(VrrpEvent::new_state) {
                assert_eq!(became, state, "{event:?}");
                return;
            }
            assert!(event.is_none(), "{event:?}");
        }
        panic!("it does not become {state}");
    }

    fn stays(&mut self, time: Duration) {
        let event = self.events.recv_timeout(time).expect("it runs");
        assert!(event.is_none(), "{event:?}");
    }
}

/// Takes turns with keepalived: by priority, by farewell, by death.
fn take_turns(talk: Talk) {
    if !namespaces::can_run(&["ip", "keepalived"]) {
        return;
    }
    let Some(link) = Link::new() else { return };
    let mut theirs = Keepalived::start(&link, talk, 100);
    theirs.says("Entering MASTER STATE", 1);

    let shared = talk.addresses()[2];
    let mut ours = Ours::start(&link, talk, 150);
    ours.becomes(VrrpState::Backup);
    ours.becomes(VrrpState::Master);
    assert!(ours.vrrp.is_master() && link.has("b", shared));
    theirs.says("Entering BACKUP STATE", 2);
    ours.vrrp.stop();
    assert!(!link.has("b", shared), "it gave the address up");
    theirs.says("Entering MASTER STATE", 2);

    let mut ours = Ours::start(&link, talk, 50);
    ours.becomes(VrrpState::Backup);
    ours.stays(6 * talk.interval);
    assert!(!link.has("b", shared));
    let killed = now();
    theirs.kill();
    ours.becomes(VrrpState::Master);
    assert!(now() - killed >= 2 * talk.interval, "it waits for three, one of which is under way");

    let theirs = Keepalived::start(&link, talk, 100);
    theirs.says("Entering MASTER STATE", 1);
    ours.becomes(VrrpState::Backup);
    let mut theirs = theirs;
    theirs.kill();
    ours.becomes(VrrpState::Master);
    let view = ours.vrrp.status().expect("it answers");
    let adverts = &view.routers[0].adverts;
    assert!(adverts.sent > 0 && adverts.received > 0, "{view:?}");
    assert!(adverts.refused.is_empty() && adverts.mismatched == 0, "{view:?}");
    assert_eq!((view.routers[0].transitions[&VrrpState::Master], view.events_lost), (2, 0));
}

const SECOND: Duration = Duration::from_secs(1);
const HUNDREDTH: Duration = Duration::from_millis(10);

#[test]
fn version_2() {
    take_turns(Talk { version: VrrpVersion::V2, interval: SECOND, is_v6: false, unicast: false });
}

#[test]
fn version_2_unicast() {
    take_turns(Talk { version: VrrpVersion::V2, interval: SECOND, is_v6: false, unicast: true });
}

#[test]
fn version_3() {
    for interval in [10 * HUNDREDTH, HUNDREDTH] {
        take_turns(Talk { version: VrrpVersion::V3, interval, is_v6: false, unicast: false });
    }
}

#[test]
fn version_3_unicast() {
    for interval in [SECOND, 10 * HUNDREDTH] {
        take_turns(Talk { version: VrrpVersion::V3, interval, is_v6: false, unicast: true });
    }
}

#[test]
fn version_3_over_ipv6() {
    for interval in [10 * HUNDREDTH, HUNDREDTH] {
        take_turns(Talk { version: VrrpVersion::V3, interval, is_v6: true, unicast: false });
    }
}

#[test]
fn version_3_over_ipv6_unicast() {
    for interval in [SECOND, 10 * HUNDREDTH] {
        take_turns(Talk { version: VrrpVersion::V3, interval, is_v6: true, unicast: true });
    }
}
