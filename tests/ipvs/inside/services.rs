//! Virtual services.

use std::fs;
use std::net::Ipv4Addr;

use lvs::ipvs::{
    IpvsFamily, IpvsNetmask, IpvsPersistence, IpvsProtocol, IpvsService, IpvsServiceKey,
};

use super::{client, ipvsadm, proc_net, saved, services, tcp, udp};
use crate::guest;

/// Services of every kind, each with the line that `ipvsadm-save` writes of it.
fn services_of_every_kind() -> Vec<(IpvsService, &'static str)> {
    let mut all = Vec::new();
    all.push((IpvsService::new(tcp("10.0.0.1:80"), "rr"), "-A -t 10.0.0.1:80 -s rr"));
    let mut persistent = IpvsService::new(tcp("10.0.0.2:0"), "wlc");
    let mut persistence = IpvsPersistence::new(IpvsFamily::V4, 300);
    persistence.netmask = IpvsNetmask::V4(Ipv4Addr::new(255, 255, 255, 0));
    persistent.persistence = Some(persistence);
    all.push((persistent, "-A -t 10.0.0.2:0 -s wlc -p 300 -M 255.255.255.0"));
    let mut one_packet = IpvsService::new(udp("10.0.0.1:53"), "wrr");
    one_packet.one_packet = true;
    all.push((one_packet, "-A -u 10.0.0.1:53 -s wrr -o"));
    let mut engine = IpvsService::new(udp("10.0.0.1:5060"), "rr");
    engine.persistence = Some(IpvsPersistence::new(IpvsFamily::V4, 60));
    engine.persistence_engine = Some("sip".to_owned());
    all.push((engine, "-A -u 10.0.0.1:5060 -s rr -p 60 --pe sip"));
    let address = "10.0.0.1:7000".parse().expect("an address");
    let sctp = IpvsServiceKey::Address { protocol: IpvsProtocol::Sctp, address };
    all.push((IpvsService::new(sctp, "lc"), "-A --sctp-service 10.0.0.1:7000 -s lc"));
    let mut hashed = IpvsService::new(tcp("[2001:db8::1]:443"), "sh");
    hashed.scheduler_flags.flag1 = true;
    hashed.scheduler_flags.flag2 = true;
    all.push((hashed, "-A -t [2001:db8::1]:443 -s sh -b sh-fallback,sh-port"));
    let mut prefix = IpvsService::new(udp("[2001:db8::1]:443"), "mh");
    prefix.scheduler_flags.flag2 = true;
    let mut persistence = IpvsPersistence::new(IpvsFamily::V6, 120);
    persistence.netmask = IpvsNetmask::V6(64);
    prefix.persistence = Some(persistence);
    all.push((prefix, "-A -u [2001:db8::1]:443 -s mh -p 120 -M 64 -b mh-port"));
    let mark = 7.try_into().expect("not 0");
    let marked = |family| IpvsServiceKey::Mark { family, mark };
    all.push((IpvsService::new(marked(IpvsFamily::V4), "nq"), "-A -f 7 -s nq"));
    let mut flag3 = IpvsService::new(marked(IpvsFamily::V6), "sed");
    flag3.scheduler_flags.flag3 = true;
    all.push((flag3, "-A -f 7 -6 -s sed -b flag-3"));
    all
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn services_of_every_kind_are_those_that_ipvsadm_saves() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    let mut all = services_of_every_kind();
    for (service, _) in &all {
        ipvs.add_service(service).unwrap();
    }
    all.sort_by_key(|(service, _)| service.key);
    let expected: Vec<_> = all.iter().map(|(service, _)| service.clone()).collect();
    assert_eq!(services(&mut ipvs), expected);
    for service in &expected {
        assert_eq!(ipvs.service(&service.key).unwrap().service, *service);
    }
    let mut lines: Vec<_> = all.iter().map(|(_, line)| (*line).to_owned()).collect();
    lines.sort();
    assert_eq!(saved(), lines);
    let table = proc_net("ip_vs");
    for row in ["TCP  0A000001:0050 rr", "UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:01BB mh"] {
        assert!(table.contains(row), "{table}");
    }
    // What ipvsadm restores is the same to the client.
    ipvs.flush().unwrap();
    assert_eq!((saved(), services(&mut ipvs)), (vec![], vec![]));
    for line in &lines {
        ipvsadm(line);
    }
    assert_eq!(services(&mut ipvs), expected);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_service_is_changed_in_all_but_its_key() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    for (mut service, _) in services_of_every_kind() {
        ipvs.add_service(&service).unwrap();
        let is_any_port =
            matches!(service.key, IpvsServiceKey::Address { address, .. } if address.port() == 0);
        service.scheduler = "wrr".to_owned();
        service.scheduler_flags.flag1 ^= true;
        service.scheduler_flags.flag2 ^= true;
        service.one_packet ^= true;
        service.persistence_engine = None;
        if !is_any_port {
            service.persistence = match service.persistence {
                Some(_) => None,
                None => Some(IpvsPersistence::new(service.key.family(), 77)),
            };
        }
        ipvs.edit_service(&service).unwrap();
        assert_eq!(ipvs.service(&service.key).unwrap().service, service);
        ipvs.remove_service(&service.key).unwrap();
        assert!(ipvs.service(&service.key).unwrap_err().is_absent());
    }
    assert_eq!(saved(), [""; 0]);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn every_scheduler_of_the_kernel_can_be_named() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    let mut schedulers = vec![
        "none", "dh", "fo", "lblc", "lblcr", "lc", "mh", "nq", "ovf", "rr", "sed", "sh", "wlc",
        "wrr",
    ];
    if fs::exists("/sys/module/ip_vs_twos").unwrap() {
        schedulers.push("twos");
    }
    for (port, scheduler) in (80..).zip(&schedulers) {
        let service = IpvsService::new(tcp(&format!("10.0.0.1:{port}")), *scheduler);
        ipvs.add_service(&service).unwrap();
        assert_eq!(ipvs.service(&service.key).unwrap().service, service);
        let line = format!("-A -t 10.0.0.1:{port} -s {scheduler}");
        assert!(saved().contains(&line), "{line}");
    }
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_list_of_many_parts_is_whole() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    let expected: Vec<_> =
        (1..=3000).map(|port| IpvsService::new(tcp(&format!("10.0.0.1:{port}")), "rr")).collect();
    for service in &expected {
        ipvs.add_service(service).unwrap();
    }
    assert!(services(&mut ipvs) == expected);
    // The kernel's own file may lack a line where one part of it ends.
    assert_eq!(saved().len(), 3000);
    ipvs.flush().unwrap();
}
