//! Command lines and what they ask of the kernel.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;

fn parse(line: &str) -> Result<IpvsCommand, IpvsArgumentError> {
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    IpvsCommand::new(&IpvsArguments::parse(&words)?, &NameLookup::default())
}

fn change(line: &str) -> IpvsRequest {
    match parse(line) {
        Ok(IpvsCommand::Change(request)) => request,
        other => panic!("{line}: {other:?}"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn destination(line: &str) -> IpvsDestination {
    match change(line) {
        IpvsRequest::AddDestination { destination, .. }
        | IpvsRequest::EditDestination { destination, .. } => destination,
        other => panic!("{line}: {other}"),
    }
}

#[test]
fn services_have_the_defaults_of_ipvsadm() {
    let key = IpvsServiceKey::tcp(address("10.0.0.1:80"));
    let mut service = IpvsService::new(key, "wlc");
    assert_eq!(change("-A -t 10.0.0.1:80"), IpvsRequest::AddService(service.clone()));
    service.persistence = Some(IpvsPersistence::new(IpvsFamily::V4, 360));
    assert_eq!(change("-E -p -t 10.0.0.1:80"), IpvsRequest::EditService(service.clone()));
    let mut persistence = IpvsPersistence::new(IpvsFamily::V4, 60);
    persistence.netmask = IpvsNetmask::V4(Ipv4Addr::new(255, 255, 255, 0));
    service.persistence = Some(persistence);
    service.persistence_engine = Some("sip".to_owned());
    let line = "-A -t 10.0.0.1:80 -p 60 -M 255.255.255.0 --pe sip";
    assert_eq!(change(line), IpvsRequest::AddService(service));

    let mut hashed = IpvsService::new(IpvsServiceKey::udp(address("[2001:db8::1]:53")), "sh");
    (hashed.scheduler_flags.flag1, hashed.scheduler_flags.flag2) = (true, true);
    hashed.one_packet = true;
    let mut persistence = IpvsPersistence::new(IpvsFamily::V6, 360);
    persistence.netmask = IpvsNetmask::V6(64);
    hashed.persistence = Some(persistence);
    // The order of the options does not matter.
    let line = "-A -M 64 -p -b sh-port,flag-1 -o -s sh -u [2001:db8::1]:53";
    assert_eq!(change(line), IpvsRequest::AddService(hashed));

    let mark = IpvsServiceKey::Mark { family: IpvsFamily::V6, mark: 7.try_into().unwrap() };
    assert_eq!(change("-D -f 7 -6"), IpvsRequest::RemoveService(mark));
    let every_port = IpvsServiceKey::udp(address("[2001:db8::1]:0"));
    assert_eq!(change("-D -u 2001:db8::1"), IpvsRequest::RemoveService(every_port));
}

#[test]
fn servers_have_the_port_of_the_service_unless_they_are_translated() {
    let service = "-t 10.0.0.1:80";
    for (line, server, forwarding) in [
        ("-r 10.0.1.1", "10.0.1.1:80", IpvsForwarding::DirectRouting),
        ("-r 10.0.1.1:8080", "10.0.1.1:80", IpvsForwarding::DirectRouting),
        ("-g -r 10.0.1.1:8080", "10.0.1.1:80", IpvsForwarding::DirectRouting),
        ("-i -r 10.0.1.1:8080", "10.0.1.1:80", IpvsForwarding::Tunnel(IpvsTunnel::Ipip)),
        ("-i -r [2001:db8::2]:1", "[2001:db8::2]:80", IpvsForwarding::Tunnel(IpvsTunnel::Ipip)),
        ("-m -r 10.0.1.1:8080", "10.0.1.1:8080", IpvsForwarding::Nat),
        ("-m -r 10.0.1.1", "10.0.1.1:80", IpvsForwarding::Nat),
    ] {
        for line in [format!("-a {service} {line}"), format!("-a {line} {service}")] {
            let expected = IpvsDestination::new(address(server), forwarding);
            assert_eq!(destination(&line), expected, "{line}");
        }
    }
    assert_eq!(destination("-a -f 1 -r 10.0.1.1:8080").address, address("10.0.1.1:8080"));
    assert_eq!(destination("-a -f 1 -r 10.0.1.1").address, address("10.0.1.1:0"));
    let edited = destination("-e -t 10.0.0.1:80 -r 10.0.1.1 -m -w 0 -x 200 -y 100");
    let numbers = (edited.weight, edited.upper_threshold, edited.lower_threshold);
    assert_eq!(numbers, (0, 200, 100));
    let service = IpvsServiceKey::tcp(address("10.0.0.1:80"));
    let expected = IpvsRequest::RemoveDestination { service, address: address("10.0.1.1:8080") };
    assert_eq!(change("-d -t 10.0.0.1:80 -r 10.0.1.1:8080"), expected);
}

#[test]
fn tunnels_have_a_kind_a_port_and_a_checksum() {
    let server = "-a -t 10.0.0.1:80 -r 10.0.1.1 -i";
    let (csum, remcsum) = (IpvsTunnelChecksum::Present, IpvsTunnelChecksum::RemoteOffload);
    for (options, tunnel) in [
        ("--tun-type ipip", IpvsTunnel::Ipip),
        ("--tun-type gre", IpvsTunnel::Gre { checksum: IpvsTunnelChecksum::None }),
        ("--tun-type gre --tun-csum", IpvsTunnel::Gre { checksum: csum }),
        (
            "--tun-type gue --tun-port 6080",
            IpvsTunnel::Gue { port: 6080, checksum: <_>::default() },
        ),
        (
            "--tun-type=gue --tun-port=6080 --tun-remcsum",
            IpvsTunnel::Gue { port: 6080, checksum: remcsum },
        ),
    ] {
        let line = format!("{server} {options}");
        assert_eq!(destination(&line).forwarding, IpvsForwarding::Tunnel(tunnel), "{line}");
    }
    for (options, text) in [
        ("--tun-type gue", "a tunnel of gue needs --tun-port"),
        ("--tun-type gre --tun-remcsum", "a tunnel of gre takes no --tun-remcsum"),
        ("--tun-port 6080", "a tunnel of ipip takes no --tun-port"),
        ("--tun-type vxlan", "--tun-type: \"vxlan\" is not ipip, gue or gre"),
        ("--tun-csum --tun-nocsum", "--tun-nocsum or --tun-csum or --tun-remcsum is given twice"),
    ] {
        let error = parse(&format!("{server} {options}")).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (text, 2), "{options}");
    }
}

#[test]
fn daemons_timeouts_and_counters() {
    let mut daemon = IpvsDaemon::new(IpvsDaemonState::Master, "eth0", 0);
    assert_eq!(change("--start-daemon master"), IpvsRequest::StartDaemon(daemon.clone()));
    daemon = IpvsDaemon::new(IpvsDaemonState::Backup, "dummy7", 255);
    daemon.group = Some("ff02::81".parse().unwrap());
    (daemon.max_message_len, daemon.port, daemon.ttl) = (1400, 9000, 3);
    let line = "--start-daemon backup --mcast-interface dummy7 --syncid 255 --mcast-group ff02::81 \
                --sync-maxlen 1400 --mcast-port 9000 --mcast-ttl 3";
    assert_eq!(change(line), IpvsRequest::StartDaemon(daemon));
    let stop = IpvsRequest::StopDaemon(IpvsDaemonState::Backup);
    assert_eq!(change("--stop-daemon=backup --syncid 3"), stop);
    assert_eq!(change("--set 900 0 300"), IpvsRequest::SetTimeouts(IpvsTimeouts::new(900, 0, 300)));
    assert_eq!(change("-Z"), IpvsRequest::ZeroCounters(None));
    let key = IpvsServiceKey::tcp(address("10.0.0.1:80"));
    assert_eq!(change("-Zt10.0.0.1:80"), IpvsRequest::ZeroCounters(Some(key)));
    assert_eq!(change("--clear"), IpvsRequest::Flush);
}

#[test]
fn lists_have_the_columns_of_the_first_option_that_has_some() {
    let of = |columns| ListFormat { columns, ..ListFormat::default() };
    let numeric = ListFormat { is_numeric: true, ..ListFormat::default() };
    for (line, format) in [
        ("-L", ListFormat::default()),
        ("-ln --sort --sort", numeric),
        ("-L --rate --stats", of(ListColumns::Stats)),
        ("-L --thresholds --rate", of(ListColumns::Rate)),
        ("-L --persistent-conn --tun-info", of(ListColumns::Persistence)),
        ("-L --tun-info", of(ListColumns::Tunnels)),
        ("-LX --nosort", ListFormat { is_exact: true, is_unsorted: true, ..ListFormat::default() }),
    ] {
        assert_eq!(parse(line).unwrap(), IpvsCommand::List(None, format), "{line}");
    }
    let connections = IpvsCommand::Connections { is_numeric: true, with_engine: true };
    assert_eq!(parse("-Lnc --persistent-conn").unwrap(), connections);
    assert_eq!(parse("-L --timeout").unwrap(), IpvsCommand::Timeouts);
    assert_eq!(parse("-Ln --daemon").unwrap(), IpvsCommand::Daemons);
    assert_eq!(parse("-S").unwrap(), IpvsCommand::Save { is_numeric: false });
}

#[test]
fn wrong_values_are_refused_by_name() {
    for (line, text) in [
        (
            "-A -t 10.0.0.1",
            "a service without a port, or with port 0, must be persistent: add --persistent",
        ),
        ("-A -t 10.0.0.1:80 -o", "--ops is for UDP and marks only"),
        (
            "-A -t 10.0.0.1:80 -6",
            "--ipv6 is for --fwmark-service only: other services have the family of their address",
        ),
        ("-A -f 0", "--fwmark-service: \"0\" is not a number from 1 to 4294967295"),
        (
            "-A -t 80",
            "--tcp-service: \"80\" is not an address, or the name of a host with an address of IPv4",
        ),
        (
            "-A -t [2001:db8::1]",
            "--tcp-service: \"[2001:db8::1]\" is not an address of IPv6 with a port: [2001:db8::1]:80",
        ),
        (
            "-A -t 10.0.0.1:nosuch",
            "--tcp-service: \"10.0.0.1:nosuch\" is not an address with the number of a port, or the name of a known one",
        ),
        ("-A -t 10.0.0.1:80 -p 0", "--persistent: \"0\" is not a number from 1 to 2678400"),
        (
            "-A -t 10.0.0.1:80 -s rr -b sh-port",
            "the flag \"sh-port\" is not one of the scheduler rr",
        ),
        (
            "-A -t 10.0.0.1:80 -b fast",
            "--sched-flags: \"fast\" is not sh-fallback, sh-port, mh-fallback, mh-port, flag-1, flag-2 or flag-3",
        ),
        (
            "-A -t [2001:db8::1]:80 -p -M 255.255.255.0",
            "--netmask: \"255.255.255.0\" is not a number from 1 to 128",
        ),
        (
            "-a -t 10.0.0.1:80 -r [2001:db8::1]:80",
            "a server of another address family than the service's needs a tunnel: add --ipip",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.1.1 -m --tun-type gre",
            "the options of tunnels are for --ipip only",
        ),
        ("-a -t 10.0.0.1:80 -r 10.0.1.1 -w -1", "--weight: \"-1\" is not a number from 0 to 65535"),
        ("-L -c --stats", "--connection and --stats exclude each other"),
        ("-L --daemon --persistent-conn", "--daemon and --persistent-conn exclude each other"),
        ("-L web", "the argument \"web\" belongs to no option"),
        ("--set 1 2", "--set needs three timeouts: TCP TCPFIN UDP"),
        ("--set 1 2 3 4", "the argument \"4\" belongs to no option"),
        ("--set 1 2 2678401", "--set: \"2678401\" is not a number from 0 to 2678400"),
        ("--start-daemon both", "--start-daemon: \"both\" is not master or backup"),
        (
            "--start-daemon master --mcast-group 10.0.0.1",
            "--mcast-group: \"10.0.0.1\" is not a multicast address",
        ),
        ("--start-daemon master --syncid 256", "--syncid: \"256\" is not a number from 0 to 255"),
        (
            "--start-daemon master --sync-maxlen 65508",
            "--sync-maxlen: \"65508\" is not a number from 1 to 65507",
        ),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (text, 2), "{line}");
    }
}
