//! Two network namespaces with a link between them; they need root.

#[path = "../common/namespaces.rs"]
pub(crate) mod namespaces;

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// How long a test waits for a condition.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Two namespaces with a link between them: `a` for keepalived, `b` for this crate.
pub(crate) struct Link {
    name: String,
    pub(crate) folder: PathBuf,
}

impl Link {
    /// Creates the namespaces; prints the reason and returns `None` where that is not possible.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !namespaces::can_run(&["ip"]) {
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lvs{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).expect("the folder name is unique");
        let link = Self { name, folder };
        for side in ["a", "b"] {
            link.ip(&["netns", "add", &link.space(side)]);
            link.ip(&["-n", &link.space(side), "link", "set", "lo", "up"]);
        }
        let (a, b) = (link.space("a"), link.space("b"));
        link.ip(&[
            "link", "add", "v", "netns", &a, "type", "veth", "peer", "name", "v", "netns", &b,
        ]);
        for (side, number) in [("a", 1), ("b", 2)] {
            let space = link.space(side);
            link.ip(&["-n", &space, "link", "set", "v", "addrgenmode", "none", "up"]);
            for address in ["10.88.0.N/24", "fd00:88::N/64", "fe80::N/64"] {
                let address = address.replace('N', &number.to_string());
                let v6 = if address.contains(':') { "nodad" } else { "scope" };
                let mut words = vec!["-n", &space, "addr", "add", &address, "dev", "v", v6];
                words.extend((v6 == "scope").then_some("global"));
                link.ip(&words);
            }
        }
        Some(link)
    }

    pub(crate) fn space(&self, side: &str) -> String {
        format!("{}-{side}", self.name)
    }

    /// Calls a function in a namespace: its sockets stay in that namespace.
    pub(crate) fn within<R: Send>(&self, side: &str, act: impl FnOnce() -> R + Send) -> R {
        let space = format!("/run/netns/{}", self.space(side));
        thread::scope(|scope| {
            let act = scope.spawn(move || {
                let space = File::open(space).expect("the namespace exists");
                setns(space, CloneFlags::CLONE_NEWNET).expect("as root");
                act()
            });
            act.join().expect("the function does not panic")
        })
    }

    pub(crate) fn has(&self, side: &str, address: IpAddr) -> bool {
        let space = self.space(side);
        let words = ["-n", &space, "-br", "addr", "show", "dev", "v"];
        let output = Command::new("ip").args(words).output().expect("`ip`");
        String::from_utf8_lossy(&output.stdout).contains(&format!("{address}/"))
    }

    pub(crate) fn ip(&self, words: &[&str]) {
        let output =
            Command::new("ip").args(words).output().expect("`ip`, of the package iproute2");
        assert!(
            output.status.success(),
            "ip {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for side in ["a", "b"] {
            let _ = Command::new("ip").args(["netns", "del", &self.space(side)]).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "other processes run in real time")]
    Instant::now()
}
