//! Elections against keepalived, each in both roles, on a link between two network namespaces.
//!
//! The tests need root, `ip` and keepalived; elsewhere they are skipped, and print the reason.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use lvs::events::EventTimeout;
use lvs::vrrp::{ElectionConfig, VirtualRouterConfig, Vrrp, VrrpEvents, VrrpState, VrrpVersion};
use rustix::process::{Pid, Signal, kill_process};

use crate::link::{Link, TIMEOUT, namespaces, now};

const VRID: u8 = 51;

/// The protocol settings of both routers.
#[derive(Clone, Copy)]
struct Setup {
    version: VrrpVersion,
    interval: Duration,
    is_v6: bool,
    unicast: bool,
}

impl Setup {
    fn addresses(self) -> [IpAddr; 3] {
        let texts = match (self.is_v6, self.unicast) {
            (false, _) => ["10.88.0.1", "10.88.0.2", "10.88.0.100"],
            (true, false) => ["fe80::1", "fe80::2", "fe80::100"],
            (true, true) => ["fd00:88::1", "fd00:88::2", "fe80::100"],
        };
        texts.map(|text| text.parse().expect("an IP address"))
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
             virtual_router_id {VRID}\n priority {priority}\n advert_int {interval}\n {peers}\n \
             virtual_ipaddress {{\n {shared}/{length}\n }}\n}}\n"
        )
    }
}

/// A running keepalived.
struct Keepalived {
    process: Child,
    log: PathBuf,
    /// The file with the process id of the VRRP child.
    child: PathBuf,
}

impl Keepalived {
    fn start(link: &Link, setup: Setup, priority: u8) -> Self {
        let file = |name: &str| link.folder.join(name);
        fs::write(file("conf"), setup.keepalived(priority)).expect("the file is accessible");
        let log = File::create(file("log")).expect("the file is accessible");
        let process = Command::new("ip")
            .args(["netns", "exec", &link.space("a"), "keepalived", "-n", "-l", "-P", "-f"])
            .arg(file("conf"))
            .arg("-p")
            .arg(file("pid"))
            .arg("-r")
            .arg(file("vrrp.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the file is accessible"))
            .stderr(log)
            .spawn()
            .expect("keepalived, of the package of that name");
        Self { process, log: file("log"), child: file("vrrp.pid") }
    }

    /// Waits until a text has appeared in the log this many times.
    fn wait_for_log(&self, text: &str, times: usize) {
        let began_at = now();
        loop {
            let log = fs::read_to_string(&self.log).expect("the file is accessible");
            if log.matches(text).count() >= times {
                return;
            }
            assert!(
                now() - began_at < TIMEOUT,
                "the log does not have {text:?} {times} times:\n{log}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the child that holds the addresses, before its parent can make it resign.
    fn kill(&mut self) {
        let child = fs::read_to_string(&self.child).unwrap_or_default();
        if let Some(child) = child.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Without a process that reaps orphans, the process id stays in use.
        let _ = fs::remove_file(&self.child);
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A virtual router of this crate, in the other namespace.
struct Ours {
    vrrp: Vrrp,
    events: VrrpEvents,
}

impl Ours {
    fn start(link: &Link, setup: Setup, priority: u8) -> Self {
        let [theirs, ours, shared] = setup.addresses();
        let election = ElectionConfig::new(VRID, ours)
            .version(setup.version)
            .priority(priority)
            .interval(setup.interval);
        let mut router = VirtualRouterConfig::new("v", election).address(shared.into());
        if setup.unicast {
            router = router.peer(theirs);
        }
        let vrrp = link.within("b", || Vrrp::start([router])).expect("the test runs as root");
        Self { events: vrrp.events(), vrrp }
    }

    fn becomes(&mut self, state: VrrpState) {
        let event = self.events.blocking_next_timeout(TIMEOUT).expect("an event arrives");
        let event = event.expect("the thread runs").expect("few events");
        assert_eq!(event.new_state(), Some(state), "{event:?}");
    }

    fn stays(&mut self, time: Duration) {
        let event = self.events.blocking_next_timeout(time);
        assert_eq!(event, Err(EventTimeout(time)), "no event arrives");
    }
}

/// Takes over from keepalived, and hands over to it: by priority, by resignation, by a crash.
fn take_turns(setup: Setup) {
    if !namespaces::can_run(&["ip", "keepalived"]) {
        return;
    }
    let Some(link) = Link::new() else { return };
    let mut theirs = Keepalived::start(&link, setup, 100);
    theirs.wait_for_log("Entering MASTER STATE", 1);

    let shared = setup.addresses()[2];
    let mut ours = Ours::start(&link, setup, 150);
    ours.becomes(VrrpState::Backup);
    ours.becomes(VrrpState::Master);
    assert!(ours.vrrp.is_master() && link.has("b", shared));
    theirs.wait_for_log("Entering BACKUP STATE", 2);
    ours.vrrp.stop();
    assert!(!link.has("b", shared), "the address is released");
    theirs.wait_for_log("Entering MASTER STATE", 2);

    let mut ours = Ours::start(&link, setup, 50);
    ours.becomes(VrrpState::Backup);
    ours.stays(6 * setup.interval);
    assert!(!link.has("b", shared));
    let killed = now();
    theirs.kill();
    ours.becomes(VrrpState::Master);
    assert!(
        now() - killed >= 2 * setup.interval,
        "a backup waits for three intervals, one of which has begun"
    );

    let theirs = Keepalived::start(&link, setup, 100);
    theirs.wait_for_log("Entering MASTER STATE", 1);
    ours.becomes(VrrpState::Backup);
    let mut theirs = theirs;
    theirs.kill();
    ours.becomes(VrrpState::Master);
    let status = ours.vrrp.status().expect("the thread replies");
    let adverts = &status.routers[0].adverts;
    assert!(adverts.sent > 0 && adverts.received > 0, "{status:?}");
    assert!(adverts.refused.is_empty() && adverts.mismatched == 0, "{status:?}");
    assert_eq!(status.routers[0].transitions[&VrrpState::Master], 2);
}

const SECOND: Duration = Duration::from_secs(1);
const HUNDREDTH: Duration = Duration::from_millis(10);

#[test]
fn version_2() {
    take_turns(Setup { version: VrrpVersion::V2, interval: SECOND, is_v6: false, unicast: false });
}

#[test]
fn version_2_unicast() {
    take_turns(Setup { version: VrrpVersion::V2, interval: SECOND, is_v6: false, unicast: true });
}

#[test]
fn version_3() {
    for interval in [10 * HUNDREDTH, HUNDREDTH] {
        take_turns(Setup { version: VrrpVersion::V3, interval, is_v6: false, unicast: false });
    }
}

#[test]
fn version_3_unicast() {
    for interval in [SECOND, 10 * HUNDREDTH] {
        take_turns(Setup { version: VrrpVersion::V3, interval, is_v6: false, unicast: true });
    }
}

#[test]
fn version_3_over_ipv6() {
    for interval in [10 * HUNDREDTH, HUNDREDTH] {
        take_turns(Setup { version: VrrpVersion::V3, interval, is_v6: true, unicast: false });
    }
}

#[test]
fn version_3_over_ipv6_unicast() {
    for interval in [SECOND, 10 * HUNDREDTH] {
        take_turns(Setup { version: VrrpVersion::V3, interval, is_v6: true, unicast: true });
    }
}
