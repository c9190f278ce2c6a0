//! Destinations.

use lvs::ipvs::{
    IpvsClient, IpvsDestination, IpvsForwarding, IpvsService, IpvsServiceKey, IpvsTunnel,
    IpvsTunnelChecksum,
};

use super::{client, ipvsadm, proc_net, saved, tcp};
use crate::guest;

fn destination(address: &str, forwarding: IpvsForwarding) -> IpvsDestination {
    IpvsDestination::new(address.parse().expect("an address"), forwarding)
}

fn gue(checksum: IpvsTunnelChecksum) -> IpvsForwarding {
    IpvsForwarding::Tunnel(IpvsTunnel::Gue { port: 6080, checksum })
}

fn gre(checksum: IpvsTunnelChecksum) -> IpvsForwarding {
    IpvsForwarding::Tunnel(IpvsTunnel::Gre { checksum })
}

/// Reads the destinations of a service, in order.
fn destinations(ipvs: &mut IpvsClient, service: &IpvsServiceKey) -> Vec<IpvsDestination> {
    let statuses = ipvs.destinations(service).expect("a list");
    let mut found: Vec<_> = statuses.into_iter().map(|status| status.destination).collect();
    found.sort_by_key(|destination| destination.address);
    found
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn destinations_of_every_kind_are_those_that_ipvsadm_saves() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    let service = tcp("10.0.0.1:80");
    ipvs.add_service(&IpvsService::new(service, "wrr")).unwrap();
    let mut all = vec![
        (destination("10.0.1.1:8080", IpvsForwarding::Nat), "10.0.1.1:8080 -m -w 1"),
        (destination("10.0.1.2:80", IpvsForwarding::DirectRouting), "10.0.1.2:80 -g -w 1"),
        (
            destination("10.0.1.3:80", IpvsForwarding::Tunnel(IpvsTunnel::Ipip)),
            "10.0.1.3:80 -i -w 1 --tun-type ipip",
        ),
        (
            destination("10.0.1.4:80", gue(IpvsTunnelChecksum::None)),
            "10.0.1.4:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
        ),
        (
            destination("10.0.1.5:80", gue(IpvsTunnelChecksum::Present)),
            "10.0.1.5:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum",
        ),
        (
            destination("10.0.1.6:80", gue(IpvsTunnelChecksum::RemoteOffload)),
            "10.0.1.6:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
        ),
        (
            destination("10.0.1.7:80", gre(IpvsTunnelChecksum::None)),
            "10.0.1.7:80 -i -w 1 --tun-type gre --tun-nocsum",
        ),
        (
            destination("10.0.1.8:80", gre(IpvsTunnelChecksum::Present)),
            "10.0.1.8:80 -i -w 1 --tun-type gre --tun-csum",
        ),
    ];
    let mut heavy = destination("10.0.1.9:80", IpvsForwarding::Nat);
    heavy.weight = 65_535;
    (heavy.upper_threshold, heavy.lower_threshold) = (1000, 900);
    all.push((heavy, "10.0.1.9:80 -m -w 65535"));
    // To another family by tunnel.
    let six = destination("[2001:db8::7]:80", IpvsForwarding::Tunnel(IpvsTunnel::Ipip));
    all.push((six, "[2001:db8::7]:80 -i -w 1 --tun-type ipip"));
    for (destination, _) in &all {
        ipvs.add_destination(&service, destination).unwrap();
    }
    let expected: Vec<_> = all.iter().map(|(destination, _)| destination.clone()).collect();
    assert_eq!(destinations(&mut ipvs, &service), expected);
    let lines = all.iter().map(|(_, line)| format!("-a -t 10.0.0.1:80 -r {line}"));
    let mut lines: Vec<_> = lines.chain(["-A -t 10.0.0.1:80 -s wrr".to_owned()]).collect();
    lines.sort();
    assert_eq!(saved(), lines);
    let thresholds = ipvsadm("-L -n --thresholds");
    let row = thresholds.lines().find(|line| line.contains("10.0.1.9:80")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[2..4], ["1000", "900"]);
    let table = proc_net("ip_vs");
    assert!(table.contains("-> 0A000109:0050      Masq    65535"), "{table}");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_destination_is_changed_in_all_but_its_address() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    for (service, server) in
        [("10.0.0.1:80", "10.0.1.1:80"), ("[2001:db8::1]:80", "[2001:db8::2]:80")]
    {
        let service = tcp(service);
        ipvs.add_service(&IpvsService::new(service, "wlc")).unwrap();
        let mut server = destination(server, IpvsForwarding::Nat);
        ipvs.add_destination(&service, &server).unwrap();
        let methods = [
            IpvsForwarding::DirectRouting,
            IpvsForwarding::Tunnel(IpvsTunnel::Ipip),
            gue(IpvsTunnelChecksum::Present),
            gre(IpvsTunnelChecksum::Present),
            IpvsForwarding::Local,
            IpvsForwarding::Nat,
        ];
        for (weight, forwarding) in (0..).zip(methods) {
            server.forwarding = forwarding;
            server.weight = weight * 1000;
            (server.upper_threshold, server.lower_threshold) = (weight * 10, weight);
            ipvs.edit_destination(&service, &server).unwrap();
            assert_eq!(destinations(&mut ipvs, &service), [server.clone()]);
        }
        server.weight = i32::MAX as u32;
        ipvs.edit_destination(&service, &server).unwrap();
        assert_eq!(destinations(&mut ipvs, &service), [server.clone()]);
        ipvs.remove_destination(&service, server.address).unwrap();
        assert!(ipvs.remove_destination(&service, server.address).unwrap_err().is_absent());
        assert_eq!(destinations(&mut ipvs, &service), []);
        ipvs.remove_service(&service).unwrap();
        assert!(ipvs.remove_destination(&service, server.address).unwrap_err().is_absent());
        assert_eq!(destinations(&mut ipvs, &service), [], "of a service that is not there");
    }
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_list_of_many_parts_is_whole() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    let service = tcp("10.0.0.1:80");
    ipvs.add_service(&IpvsService::new(service, "rr")).unwrap();
    let expected: Vec<_> = (1..=2000)
        .map(|port| destination(&format!("10.0.1.1:{port}"), IpvsForwarding::Nat))
        .collect();
    for destination in &expected {
        ipvs.add_destination(&service, destination).unwrap();
    }
    assert!(destinations(&mut ipvs, &service) == expected);
}
