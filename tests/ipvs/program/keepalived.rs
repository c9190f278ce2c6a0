//! What Debian's keepalived sends to the kernel: the requests that `lvs ipvs` sends for lines that say the
//! same as keepalived's configuration.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Stdio};

use lvs::ipvs::IpvsRequest;
use rustix::process::{Pid, Signal, kill_process};

use super::captures::{NetlinkMonitor, add_interface, changes};
use super::compare::linked;
use crate::guest;
use crate::inside::{ipvsadm, wait_for};

/// Servers without a check are up; that of `10.0.0.4` is checked and never answers, so that the sorry server
/// serves.
const CONFIG: &str = "\
global_defs {
    lvs_timeouts tcp 901 tcpfin 121 udp 301
    lvs_sync_daemon sync0 id 7 maxlen 1400 port 9000 ttl 3 group 224.0.0.99
}
virtual_server 10.0.0.1 80 {
    lvs_sched wrr
    lvs_method NAT
    protocol TCP
    quorum 1
    persistence_timeout 300
    persistence_granularity 255.255.255.0
    sorry_server 10.0.9.9 80
    real_server 10.0.1.1 8080 {
        weight 3
        uthreshold 200
        lthreshold 100
    }
    real_server 10.0.1.2 8080 {
        weight 0
    }
}
virtual_server 10.0.0.2 443 {
    lvs_sched sh
    protocol TCP
    sh-port
    sh-fallback
    lvs_method DR
    real_server 10.0.1.1 443 {
    }
}
virtual_server 10.0.0.3 80 {
    lvs_sched wlc
    protocol TCP
    lvs_method TUN type gue port 6080 csum
    real_server 10.0.1.1 80 {
    }
    real_server 10.0.1.2 80 {
        lvs_method TUN type gre
    }
    real_server 10.0.1.3 80 {
        lvs_method TUN
    }
}
virtual_server 10.0.0.4 80 {
    lvs_sched rr
    protocol TCP
    lvs_method NAT
    alpha
    sorry_server 10.0.9.9 80
    real_server 10.0.1.4 80 {
        TCP_CHECK {
            connect_timeout 1
        }
    }
}
virtual_server 10.0.0.1 53 {
    lvs_sched rr
    lvs_method NAT
    protocol UDP
    ops
    real_server 10.0.1.1 53 {
    }
}
virtual_server fwmark 7 {
    lvs_sched nq
    protocol TCP
    lvs_method DR
    persistence_timeout 60
    real_server 10.0.1.1 0 {
    }
}
virtual_server 2001:db8::1 443 {
    lvs_sched mh
    protocol TCP
    mh-port
    lvs_method NAT
    persistence_timeout 120
    persistence_granularity 64
    real_server 2001:db8:1::1 8443 {
        weight 65535
    }
}
";

/// The same for ipvsadm. Without a VRRP instance whose state says which of the daemons is to run, keepalived
/// stops and starts both.
const LINES: &str = "\
--set 901 121 301
--stop-daemon master
--stop-daemon backup
--start-daemon master --mcast-interface sync0 --syncid 7 --sync-maxlen 1400 --mcast-port 9000 --mcast-ttl 3 --mcast-group 224.0.0.99
--start-daemon backup --mcast-interface sync0 --syncid 7 --sync-maxlen 1400 --mcast-port 9000 --mcast-ttl 3 --mcast-group 224.0.0.99
-A -t 10.0.0.1:80 -s wrr -p 300 -M 255.255.255.0
-a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 3 -x 200 -y 100
-a -t 10.0.0.1:80 -r 10.0.1.2:8080 -m -w 0
-A -t 10.0.0.2:443 -s sh -b sh-port,sh-fallback
-a -t 10.0.0.2:443 -r 10.0.1.1:443 -g
-A -t 10.0.0.3:80 -s wlc
-a -t 10.0.0.3:80 -r 10.0.1.1:80 -i --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.0.0.3:80 -r 10.0.1.2:80 -i --tun-type gre
-a -t 10.0.0.3:80 -r 10.0.1.3:80 -i
-A -t 10.0.0.4:80 -s rr
-a -t 10.0.0.4:80 -r 10.0.9.9:80 -m
-A -u 10.0.0.1:53 -s rr -o
-a -u 10.0.0.1:53 -r 10.0.1.1:53 -m
-A -f 7 -s nq -p 60
-a -f 7 -r 10.0.1.1:0 -g
-A -t [2001:db8::1]:443 -s mh -p 120 -M 64 -b mh-port
-a -t [2001:db8::1]:443 -r [2001:db8:1::1]:8443 -m -w 65535
";

struct Keepalived(Child);

impl Keepalived {
    fn start() -> Self {
        fs::write("/run/keepalived.conf", CONFIG).expect("a writable folder");
        let child = Command::new("keepalived")
            .args(["-n", "-l", "-C", "-f", "/run/keepalived.conf"])
            .args(["-p", "/run/keepalived.pid", "-c", "/run/checkers.pid"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("keepalived starts"))
    }

    fn stop(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("a child");
        self.0.wait().expect("a child");
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts equal requests: the order is each program's own.
fn counts(requests: &[IpvsRequest]) -> HashMap<&IpvsRequest, usize> {
    let mut counts = HashMap::new();
    for request in requests {
        *counts.entry(request).or_default() += 1;
    }
    counts
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn requests_of_keepalived_are_those_of_lines_that_say_the_same() {
    if !guest::enter() {
        return;
    }
    add_interface();
    let mut monitor = NetlinkMonitor::start();
    for line in LINES.lines() {
        linked(line);
    }
    let ours = changes(&monitor.requests());
    assert_eq!(ours.len(), LINES.lines().count());
    for line in ["-C", "--stop-daemon master", "--stop-daemon backup"] {
        ipvsadm(line);
    }
    let _ = monitor.requests();

    let mut keepalived = Keepalived::start();
    let mut theirs = Vec::new();
    wait_for(|| {
        theirs.extend(changes(&monitor.requests()));
        (theirs.len() >= ours.len()).then_some(())
    });
    assert_eq!(counts(&theirs), counts(&ours));

    // At its end it removes what it added.
    keepalived.stop();
    let removed = changes(&monitor.requests());
    for request in &ours {
        let expected = match request {
            IpvsRequest::AddService(service) => IpvsRequest::RemoveService(service.key),
            IpvsRequest::StartDaemon(daemon) => IpvsRequest::StopDaemon(daemon.state),
            _ => continue,
        };
        assert!(removed.contains(&expected), "{expected}");
    }
    assert_eq!(ipvsadm("-Sn"), "");
}
