//! Counters.

use std::net::UdpSocket;
use std::time::Duration;

use lvs::ipvs::{IpvsDestination, IpvsForwarding, IpvsService};

use super::{client, ipvsadm, proc_net, run, udp, wait_for};
use crate::guest;

#[test]
#[ignore = "runs in a kernel of its own"]
fn counters_are_those_of_the_kernels_file_until_they_are_zeroed() {
    if !guest::enter() {
        return;
    }
    run("ip", "address add 10.0.0.1/32 dev lo");
    let mut ipvs = client();
    let (key, idle) = (udp("10.0.0.1:5300"), udp("10.0.0.1:5400"));
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let server = IpvsDestination::new(receiver.local_addr().unwrap(), IpvsForwarding::Nat);
    for key in [key, idle] {
        ipvs.add_service(&IpvsService::new(key, "rr")).unwrap();
        ipvs.add_destination(&key, &server).unwrap();
    }
    for _ in 0..3 {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..2 {
            sender.send_to(b"12345678", "10.0.0.1:5300").unwrap();
            assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 8);
        }
    }
    // The kernel adds up every two seconds.
    let stats = wait_for(|| {
        let stats = ipvs.service(&key).unwrap().stats;
        (stats.connections == 3).then_some(stats)
    });
    assert_eq!((stats.connections, stats.incoming_packets), (3, 6));
    assert_eq!(stats.incoming_bytes, 6 * (20 + 8 + 8));
    let status = &ipvs.destinations(&key).unwrap()[0];
    assert_eq!(status.stats.connections, 3);
    assert_eq!((status.active_connections, status.inactive_connections), (0, 3));
    assert_eq!(ipvs.service(&idle).unwrap().stats.connections, 0);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let table = ipvsadm("-L -n --stats --exact");
    let row = table.lines().find(|line| line.contains("10.0.0.1:5300")).unwrap();
    assert_eq!(words(row)[2..5], ["3", "6", "0"]);
    assert_eq!(words(row)[5], "216");
    // The total of the namespace, in hexadecimal.
    let total = proc_net("ip_vs_stats");
    assert_eq!(words(total.lines().nth(2).unwrap()), ["3", "6", "0", "D8", "0"]);

    ipvs.zero_counters(Some(&idle)).unwrap();
    assert_eq!(ipvs.service(&key).unwrap().stats.connections, 3);
    ipvs.zero_counters(Some(&key)).unwrap();
    assert_eq!(ipvs.service(&key).unwrap().stats.connections, 0);
    assert_eq!(ipvs.destinations(&key).unwrap()[0].stats.connections, 0);
    let total = || words(proc_net("ip_vs_stats").lines().nth(2).unwrap());
    assert_eq!(total()[0], "3", "the total of the namespace is not of the service");
    ipvs.zero_counters(None).unwrap();
    assert_eq!(total()[0], "0");
}
