//! Timeouts, daemons and the version.

use lvs::ipvs::{IpvsDaemon, IpvsDaemonState, IpvsTimeouts};

use super::{client, ipvsadm, proc_net, run};
use crate::guest;

#[test]
#[ignore = "runs in a kernel of its own"]
fn the_version_is_that_of_the_kernels_file() {
    if !guest::enter() {
        return;
    }
    let info = client().info().unwrap();
    let (major, minor, patch) = info.version;
    let size = info.connection_table_size;
    let title = format!("IP Virtual Server version {major}.{minor}.{patch} (size={size})");
    assert_eq!(proc_net("ip_vs").lines().next(), Some(&*title));
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn timeouts_are_set_each_alone_or_together() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    assert_eq!(ipvs.timeouts().unwrap(), IpvsTimeouts::new(900, 120, 300));
    ipvs.set_timeouts(IpvsTimeouts::new(0, 33, 0)).unwrap();
    assert_eq!(ipvs.timeouts().unwrap(), IpvsTimeouts::new(900, 33, 300));
    ipvs.set_timeouts(IpvsTimeouts::new(11, 22, 44)).unwrap();
    assert_eq!(ipvs.timeouts().unwrap(), IpvsTimeouts::new(11, 22, 44));
    assert_eq!(ipvsadm("-L --timeout").trim(), "Timeout (tcp tcpfin udp): 11 22 44");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn daemons_run_until_they_are_stopped() {
    if !guest::enter() {
        return;
    }
    run("ip", "link add dummy7 type dummy");
    run("ip", "address add 10.9.0.1/24 dev dummy7");
    run("ip", "link set dummy7 up");
    let mut ipvs = client();
    assert_eq!(ipvs.daemons().unwrap(), []);
    let mut master = IpvsDaemon::new(IpvsDaemonState::Master, "dummy7", 5);
    ipvs.start_daemon(&master).unwrap();
    let mut backup = IpvsDaemon::new(IpvsDaemonState::Backup, "dummy7", 6);
    backup.group = Some([224, 0, 0, 99].into());
    (backup.port, backup.ttl, backup.max_message_len) = (9000, 3, 1400);
    ipvs.start_daemon(&backup).unwrap();
    // The kernel's defaults.
    master.group = Some([224, 0, 0, 81].into());
    (master.port, master.ttl) = (8848, 1);
    let mut found = ipvs.daemons().unwrap();
    found.sort_by_key(|daemon| daemon.state);
    master.max_message_len = found[0].max_message_len;
    assert!(master.max_message_len > 1000, "{found:?}");
    assert_eq!(found[0], master);
    assert_eq!((found[1].port, found[1].ttl, found[1].group), (9000, 3, backup.group));
    let text = ipvsadm("-L --daemon");
    for part in [
        "master sync daemon (mcast=dummy7, syncid=5, ",
        "backup sync daemon (mcast=dummy7, syncid=6, ",
        "group=224.0.0.99, port=9000, ttl=3",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(ipvs.start_daemon(&master).unwrap_err().is_present());
    ipvs.stop_daemon(IpvsDaemonState::Master).unwrap();
    assert!(ipvs.stop_daemon(IpvsDaemonState::Master).unwrap_err().is_absent());
    assert_eq!(ipvs.daemons().unwrap().len(), 1);
    ipvs.stop_daemon(IpvsDaemonState::Backup).unwrap();
    assert_eq!(ipvs.daemons().unwrap(), []);

    let mut six = IpvsDaemon::new(IpvsDaemonState::Master, "dummy7", 0);
    six.group = Some("ff02::81".parse().expect("an address"));
    ipvs.start_daemon(&six).unwrap();
    assert_eq!(ipvs.daemons().unwrap()[0].group, six.group);
    ipvs.stop_daemon(IpvsDaemonState::Master).unwrap();
}
