//! `lvs ipvs`, judged by Debian's `ipvsadm`: the same arguments must give the same output, the same exit
//! code and the same table.

mod captures;
mod compare;
mod connections;
mod keepalived;
mod real_server;

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use self::compare::{Printed, compare, execute, linked, original, subcommand};
use crate::guest;
use crate::inside::{ipvsadm, run};

/// A table with every kind of service and server.
const TABLE: &str = "\
-A -t 10.0.0.1:80 -s rr
-a -t 10.0.0.1:80 -r 10.0.1.2:8080 -m -w 3 -x 200 -y 100
-a -t 10.0.0.1:80 -r 10.0.1.1:80 -m -w 0
-a -t 10.0.0.1:80 -r 192.168.200.200:65535 -m -w 65535
-a -t 10.0.0.1:80 -r 127.0.0.1:80 -m
-a -t 10.0.0.1:80 -r 100.0.0.1:80 -m
-A -t 192.0.2.200:443 -s wlc
-a -t 192.0.2.200:443 -r 10.0.1.1 -g
-a -t 192.0.2.200:443 -r 10.0.1.2 -i
-a -t 192.0.2.200:443 -r 10.0.1.3 -i --tun-type gue --tun-port 6080 --tun-csum
-a -t 192.0.2.200:443 -r 10.0.1.4 -i --tun-type gue --tun-port 65535 --tun-remcsum
-a -t 192.0.2.200:443 -r 10.0.1.5 -i --tun-type gre -w 7
-a -t 192.0.2.200:443 -r [2001:db8:1::5]:443 -i
-A -t 10.0.0.2:0 -s wlc -p
-A -t 100.0.0.2:22 -s lc -p 300 -M 255.255.255.0
-A -u 127.0.0.1:53 -s wrr -o
-a -u 127.0.0.1:53 -r 127.0.0.1:53 -m
-A -u 10.0.0.1:5060 -s rr -p 60 --pe sip
-A --sctp-service 255.255.255.254:65535 -s lblc
-A -t [2001:db8::1]:443 -s sh -b sh-fallback,sh-port
-a -t [2001:db8::1]:443 -r [2001:db8:1::2]:443 -m
-a -t [2001:db8::1]:443 -r [2001:db8:1::1]:8443 -m
-a -t [2001:db8::1]:443 -r [2001:db8:ffff:ffff:ffff:ffff:ffff:fffe]:65535 -m
-A -u [2001:db8::1]:53 -s mh -p 120 -M 64 -b mh-port
-A -f 7 -s nq
-a -f 7 -r 10.0.1.1:0 -m
-a -f 7 -r 10.0.1.1:81 -m
-A -f 7 -6 -s sed -b flag-1,flag-3
-A -f 2147483647 -s dh
";

/// What both print of the table. Without a word, they list all.
const LISTS: [&str; 34] = [
    "",
    "-L",
    "-Ln",
    "-l --numeric",
    "-Ln --sort",
    "-Ln --nosort",
    "-Ln --exact",
    "-L --stats",
    "-Ln --stats",
    "-Ln --stats -X",
    "-Ln --rate",
    "-LnX --rate",
    "-Ln --stats --rate",
    "-Ln --thresholds",
    "-Ln --thresholds --persistent-conn",
    "-Ln --persistent-conn",
    "-Ln --tun-info",
    "-L --tun-info --nosort",
    "-Ln --syncid 3",
    "-L -t 10.0.0.1:80",
    "-Ln -t 10.0.0.1:http --stats",
    "-Ln -t 192.0.2.200:443 --tun-info",
    "-L -u [2001:db8::1]:domain",
    "-Ln -f 7",
    "-Ln -f 7 -6 --thresholds",
    "-Lc",
    "-Lcn",
    "-Ln -c --persistent-conn",
    "-L --connection --nosort",
    "-L --timeout",
    "-Ln --daemon",
    "-S",
    "-S -n",
    "--save --numeric",
];

/// The order of addresses that are far apart depends on the one in which they were added.
fn sorted(lines: &str) -> Vec<&str> {
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_unstable();
    lines
}

/// Adds the table by one of both programs.
fn add_table(program: &str) {
    let (code, printed, has_error) = execute(program, "ipvsadm", &["-R"], TABLE);
    assert_eq!((code, &*printed, has_error), (Some(0), "", false), "{program} -R");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn every_list_is_that_of_ipvsadm() {
    if !guest::enter() {
        return;
    }
    for line in ["", "-Ln --stats", "-Lc", "-Lcn --persistent-conn", "-L --daemon", "-S"] {
        assert_eq!(compare(line).0, Some(0), "{line}, of an empty table");
    }
    ipvsadm("--set 901 121 301");
    add_table("ipvsadm");
    for line in LISTS {
        let (code, printed, _) = compare(line);
        assert_eq!(code, Some(0), "{line}");
        assert!(!printed.is_empty() || line.contains("--daemon"), "{line}");
    }
    for line in ["", "-Ln --stats", "-Lcn", "-S -n", "-L -t 10.9.9.9:80"] {
        assert_eq!(subcommand(line), original(line), "{line}");
    }
    ipvsadm("-C");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn daemons_are_started_listed_and_stopped_as_by_ipvsadm() {
    if !guest::enter() {
        return;
    }
    run("ip", "link add eth0 type dummy");
    run("ip", "address add 10.9.0.1/24 dev eth0");
    run("ip", "link set eth0 up");
    let backup = "--start-daemon backup --mcast-interface eth0 --syncid 7 --mcast-group ff02::81 \
                  --mcast-port 9000 --mcast-ttl 3 --sync-maxlen 1400";
    let mut lists = Vec::new();
    for execute_line in [original, linked] {
        // The interface has a default.
        for line in ["--start-daemon master", backup] {
            assert_eq!(execute_line(line), (Some(0), String::new(), false), "{line}");
        }
        assert_eq!(execute_line("--start-daemon master"), (Some(255), String::new(), true));
        let (_, list, _) = compare("-L --daemon");
        assert_eq!(list.lines().count(), 2, "{list}");
        lists.push(list);
        for line in ["--stop-daemon master --syncid 1", "--stop-daemon backup"] {
            assert_eq!(execute_line(line), (Some(0), String::new(), false), "{line}");
        }
        assert_eq!(compare("-Ln --daemon").1, "");
    }
    assert_eq!(lists[1], lists[0]);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn addresses_from_everywhere_are_in_the_order_of_ipvsadm() {
    if !guest::enter() {
        return;
    }
    let mut lines = String::new();
    // Any numbers that lie far apart.
    let numbers = (1..=70_u32).map(|n| n.wrapping_mul(2_654_435_761));
    let addresses: Vec<_> = numbers
        .map(Ipv4Addr::from_bits)
        .filter(|ip| (1..224).contains(&ip.octets()[0]) && !ip.is_loopback())
        .collect();
    for (n, ip) in addresses.iter().enumerate() {
        let octets = ip.octets().map(u16::from);
        let (high, low) = ((octets[0] << 8) | octets[1], (octets[2] << 8) | octets[3]);
        let six = Ipv6Addr::new(0x2000, 0, high, low, 0, 0, high, low);
        let mark = ip.to_bits() / 2 + 1;
        lines += &format!("-A -t {ip}:{n}1 -s rr\n-A -u [{six}]:53 -s rr\n-A -f {mark} -s rr\n");
        let first = addresses[0];
        lines += &format!("-a -t {first}:01 -r {ip}:80 -m\n-a -u [{six}]:53 -r [{six}]:53 -m\n");
        lines += &format!("-a -t {first}:01 -r {ip}:9{n} -m\n");
    }
    assert!(addresses.len() > 50, "{addresses:?}");
    assert_eq!(execute("lvs", "ipvsadm", &["-R"], &lines), (Some(0), String::new(), false));
    for line in ["-Ln", "-Ln --nosort", "-Sn"] {
        assert!(compare(line).1.lines().count() > 250, "{line}");
    }
    ipvsadm("-C");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn connections_and_their_counters_are_those_of_ipvsadm() {
    if !guest::enter() {
        return;
    }
    run("ip", "address add 10.0.0.1/32 dev lo");
    run("ip", "address add 2001:db8::1/128 dev lo nodad");
    for (service, receiver) in [("10.0.0.1", "127.0.0.1:0"), ("[2001:db8::1]", "[::1]:0")] {
        let receiver = UdpSocket::bind(receiver).expect("a socket");
        let server = receiver.local_addr().expect("an address");
        ipvsadm(&format!("-A -u {service}:5300 -s rr -p 300"));
        ipvsadm(&format!("-a -u {service}:5300 -r {server} -m"));
        for _ in 0..3 {
            let sender = UdpSocket::bind((server.ip(), 0)).expect("a socket");
            sender.send_to(b"12345678", format!("{service}:5300")).expect("sent");
            receiver.recv(&mut [0; 16]).expect("received");
        }
    }
    let (_, connections, _) = compare("-Lcn");
    // Each client has a persistence entry, too.
    let count = connections.lines().filter(|line| line.starts_with("UDP ")).count();
    assert_eq!(count, 8, "{connections}");
    for line in ["-Lc", "-Lcn --persistent-conn", "-Ln", "-Ln --persistent-conn", "-L --stats"] {
        compare(line);
    }
    while !compare("-Ln --stats").1.contains("10.0.0.1:5300                       3        3") {}
    compare("-Ln --stats --exact");
    compare("-Ln --rate");
    let (code, ..) = linked("-Z -u 10.0.0.1:5300");
    assert_eq!(code, Some(0));
    let (_, stats, _) = compare("-Ln --stats -u 10.0.0.1:5300");
    assert!(stats.contains("10.0.0.1:5300                       0        0"), "{stats}");
    ipvsadm("-C");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn changes_have_the_effect_and_the_exit_code_of_ipvsadm() {
    if !guest::enter() {
        return;
    }
    let changes = "\
-A -t 10.0.0.1:80
-A -t 10.0.0.9:80 -s nosuch
-E -t 10.0.0.1:80 -s wrr -p 77
-E -t 10.0.0.9:80 -s wrr
-a -t 10.0.0.9:80 -r 10.0.1.1
-a -t 10.0.0.1:80 -r 10.0.1.1:80 -m
-e -t 10.0.0.1:80 -r 10.0.1.1:80 -m -w 9
-e -t 10.0.0.1:80 -r 10.0.1.9:80 -m -w 9
-e -t 192.0.2.200:443 -r 10.0.1.4 -i --tun-type gre --tun-csum
-d -t 10.0.0.1:80 -r 10.0.1.2:8080
-d -t 10.0.0.1:80 -r 10.0.1.2:8080
-D -f 7 -6
-D -f 7 -6
-D -t 10.0.0.9:80
-Z
-Z -t 10.0.0.9:80
-L -t 10.0.0.9:80
--set 800 0 300
--set 1 2
--stop-daemon master
--start-daemon master --mcast-interface nosuch
--start-daemon elsewhere
-A -t 10.0.0.3
-A -t 10.0.0.3:80 -o
-A -t 10.0.0.3:nosuch
-A -t localhost:http
-a -t localhost:http -r localhost -m
-A -t 10.3:81
-A -t 80
-A -s rr
-A -t 10.0.0.3:80 -w 3
-A -t 10.0.0.3:80 -u 10.0.0.3:80
-A -t 10.0.0.3:80 --nosuch
-A -t
-n -L
nosuch
-L nosuch
-L -n -n
-C -n
-L -c --timeout
-L -c --stats
-A -t 10.0.0.3:80 -M 24.0.0.0
-At10.0.0.4:80 -swrr -p60
-a -t 10.0.0.4:80 -r 10.0.1.1 -i --tun-type gue
-a -t 10.0.0.4:80 -r 10.0.1.1 --tun-type gre
-a -t 10.0.0.4:80 -r [2001:db8::1]:80
-a -t 10.0.0.4:80 -r 224.0.0.1
-a -t 10.0.0.4:80 -r 10.0.1.1 -x 5 -y 6
--add-server --tcp-service=10.0.0.4:80 --real-server=10.0.1.1 --weight=5 --ipip
";
    let mut tables = Vec::new();
    for (program, execute_line) in [("ipvsadm", original as fn(&str) -> Printed), ("lvs", linked)] {
        ipvsadm("-C");
        ipvsadm("--set 900 120 300");
        add_table(program);
        let results: Vec<_> = changes
            .lines()
            .map(|line| {
                let (code, _, has_error) = execute_line(line);
                (line, code, has_error)
            })
            .collect();
        tables.push((
            results,
            ipvsadm("-Sn"),
            ipvsadm("-Ln --thresholds"),
            ipvsadm("-L --timeout"),
        ));
    }
    assert_eq!(tables[1], tables[0]);
    let refused = tables[0].0.iter().filter(|(_, code, _)| *code != Some(0)).count();
    assert!(refused > 30, "{refused}");
    assert_eq!(subcommand("-C"), (Some(0), String::new(), false));
    assert_eq!(ipvsadm("-Sn"), "");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn what_is_saved_is_restored_by_both() {
    if !guest::enter() {
        return;
    }
    add_table("ipvsadm");
    let saved = ipvsadm("-Sn");
    assert!(saved.lines().count() > 25, "{saved}");
    let programs = [("lvs", "ipvsadm", "ipvsadm-restore"), ("ipvsadm", "ipvsadm", "ipvsadm")];
    for (program, name, restore) in programs {
        ipvsadm("-C");
        let (code, printed, has_error) = execute(program, name, &["-R"], &saved);
        assert_eq!((code, &*printed, has_error), (Some(0), "", false), "{program}");
        assert_eq!(sorted(&execute("lvs", "ipvsadm-save", &["-n"], "").1), sorted(&saved));
        // The wrapper removes what there was.
        if program == "lvs" {
            let input = format!("# a comment\n{saved}");
            assert_eq!(execute(program, restore, &[], &input), (Some(0), String::new(), false));
            assert_eq!(sorted(&ipvsadm("-Sn")), sorted(&saved));
        }
    }
    let (code, printed, has_error) = execute("lvs", "ipvsadm-save", &["-x"], "");
    assert_eq!((code, &*printed, has_error), (Some(1), "", true));
    // The last line decides, and wrong arguments are the end.
    for (lines, count) in [
        ("-A -t 10.7.0.1:80\n-A -t 10.7.0.1:80\nipvsadm -A -t 10.7.0.2:80\n", 2),
        ("-A -t 10.7.0.1:80\n-A -t 10.7.0.1:80", 1),
        ("-A -t 10.7.0.1:80\n-A -t 10.7.0.1\n-A -t 10.7.0.2:80\n", 1),
        ("\n \n-A -t 10.7.0.1:80 -s rr \n\n", 1),
    ] {
        let mut results = Vec::new();
        for program in ["ipvsadm", "lvs"] {
            ipvsadm("-C");
            let (code, _, has_error) = execute(program, "ipvsadm", &["-R"], lines);
            results.push((code, has_error, ipvsadm("-Sn")));
        }
        assert_eq!(results[1], results[0], "{lines}");
        assert_eq!(results[0].2.lines().count(), count, "{lines}");
    }
    ipvsadm("-C");
}
