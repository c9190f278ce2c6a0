//! What Debian's `ipvsadm` sends to the kernel, read from an interface of the kind `nlmon`: decoded, it is the
//! request that `lvs ipvs` sends for the same arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};

use lvs::ipvs::IpvsRequest;
use socket2::{Domain, Protocol, Socket, Type};

use super::compare::{Printed, linked, original};
use crate::guest;
use crate::inside::{client, run};

/// Of `linux/if_ether.h`: packets of every kind.
const ETH_P_ALL: u16 = 3;
/// Of `linux/netlink.h`: a message that is a request.
const NLM_F_REQUEST: u16 = 1;

/// The netlink messages of this network namespace.
pub(super) struct NetlinkMonitor {
    socket: Socket,
    /// The kernel's number of the IPVS family.
    family: [u8; 2],
}

impl NetlinkMonitor {
    pub(super) fn start() -> Self {
        run("ip", "link add nlmon0 type nlmon");
        run("ip", "link set nlmon0 up");
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let mut monitor = Self { socket, family: [0; 2] };
        client().info().expect("IPVS is there");
        let messages = monitor.receive();
        let question = messages.iter().rfind(|message| has_command(message, 15));
        monitor.family.copy_from_slice(&question.expect("the client's request")[4..6]);
        monitor
    }

    /// Returns the requests to IPVS that processes of this namespace have sent since the last call. The
    /// kernel copies a message before it works on it.
    pub(super) fn requests(&mut self) -> Vec<Vec<u8>> {
        let mut messages = self.receive();
        messages.retain(|message| {
            message[4..6] == self.family && (1..=17).any(|command| has_command(message, command))
        });
        messages
    }

    /// Returns all requests, of any family, that have been sent since the last call.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut buffer = vec![0; 65_536];
        loop {
            let len = match self.socket.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return messages,
                len => len.expect("the interface stays"),
            };
            let message = &buffer[..len];
            let is_request = len >= 20
                && u16::from_ne_bytes([message[6], message[7]]) & NLM_F_REQUEST != 0
                && message[..4] == u32::try_from(len).expect("a short message").to_ne_bytes();
            if is_request {
                messages.push(message.to_vec());
            }
        }
    }
}

/// Adds the interface of the synchronization daemons.
pub(super) fn add_interface() {
    run("ip", "link add sync0 type dummy");
    run("ip", "address add 10.9.0.1/24 dev sync0");
    run("ip", "link set sync0 up");
}

/// Tells whether the header of generic netlink has this command, and version 1.
fn has_command(message: &[u8], command: u8) -> bool {
    message[16..20] == [command, 1, 0, 0]
}

/// Decodes messages, and leaves out those that only read.
pub(super) fn changes(messages: &[Vec<u8>]) -> Vec<IpvsRequest> {
    let decode = |message: &Vec<u8>| IpvsRequest::decode(message).expect("a request");
    let mut requests: Vec<_> = messages.iter().map(decode).collect();
    requests.retain(|request| !is_reading(request));
    requests
}

fn is_reading(request: &IpvsRequest) -> bool {
    use IpvsRequest as R;
    matches!(
        request,
        R::GetService(_)
            | R::ListServices
            | R::ListDestinations(_)
            | R::ListDaemons
            | R::GetTimeouts
            | R::GetInfo
    )
}

/// Returns the values of a message's attributes by the number of the object that has them (0 for none) and
/// their own.
fn attributes(message: &[u8]) -> BTreeMap<(u16, u16), Vec<u8>> {
    let mut all = BTreeMap::new();
    for (number, value) in list(&message[20..]) {
        match number {
            1..=3 => all.extend(list(value).into_iter().map(|(n, v)| ((number, n), v.to_vec()))),
            _ => drop(all.insert((0, number), value.to_vec())),
        }
    }
    all
}

/// Splits attributes: the length of each counts its header, and is padded to four octets.
fn list(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while bytes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let number = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        all.push((number, &bytes[4..len]));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// Lines of which both programs send the same octets, but for the number of the message.
const EQUAL: &str = "\
-A -t 10.0.0.1:80
-A -t 10.0.0.1:80 -s rr
-A -u 10.0.0.1:53 -s wrr -o
-A --sctp-service 10.0.0.1:7000 -s lc
-A -t [2001:db8::1]:443 -s sh -b sh-fallback,sh-port
-A -u [2001:db8::1]:53 -s mh -p 120 -M 64 -b mh-port
-A -t [2001:db8::1]:80 -s mh -b mh-fallback
-A -t 10.0.0.2:0 -s wlc -p
-A -t 10.0.0.2:22 -s lc -p 300 -M 255.255.255.0
-A -u 10.0.0.1:5060 -s rr -p 60 --pe sip
-A -f 7 -s nq
-A -f 7 -6 -s sed -b flag-1,flag-2,flag-3
-A -f 2147483647 -s dh -p 7 -M 255.0.0.0
-E -t 10.0.0.1:80 -s wrr -p 77
-E -u [2001:db8::1]:53 -s lblcr
-E -f 7 -s twos
-C
-Z
--set 901 121 301
--set 0 33 0
--start-daemon master --mcast-interface sync0
--start-daemon master --mcast-interface sync0 --syncid 255 --sync-maxlen 1400
--start-daemon backup --mcast-interface sync0 --syncid 7 --mcast-group 224.0.0.99 --mcast-port 9000 --mcast-ttl 3
--start-daemon backup --mcast-interface sync0 --mcast-group ff02::81 --sync-maxlen 9000
";

/// Lines of which ipvsadm sends more: of a service that it names everything, and of a destination its family
/// and what tunnels have, in another order.
const MORE: &str = "\
-D -t 10.0.0.1:80
-D -f 7 -6
-Z -t 10.0.0.1:80
-Z -u [2001:db8::1]:53
-a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 3 -x 200 -y 100
-a -t 10.0.0.1:80 -r 10.0.1.1 -m -w 0
-a -t 10.0.0.1:80 -r 10.0.1.2 -g
-a -t 10.0.0.1:80 -r 10.0.1.2:8080
-a -t 10.0.0.1:80 -r 10.0.1.3 -i -w 65535
-a -t 10.0.0.1:80 -r 10.0.1.3 -i --tun-type ipip
-a -t 10.0.0.1:80 -r 10.0.1.4 -i --tun-type gue --tun-port 6080
-a -t 10.0.0.1:80 -r 10.0.1.4 -i --tun-type gue --tun-port 65535 --tun-csum
-a -t 10.0.0.1:80 -r 10.0.1.4 -i --tun-type gue --tun-port 1 --tun-remcsum
-a -t 10.0.0.1:80 -r 10.0.1.5 -i --tun-type gre
-a -t 10.0.0.1:80 -r 10.0.1.5 -i --tun-type gre --tun-csum
-a -t 10.0.0.1:80 -r [2001:db8:1::5]:80 -i
-a -t [2001:db8::1]:443 -r [2001:db8:1::2]:8443 -m
-a -t [2001:db8::1]:443 -r 10.0.1.1 -i
-a -u 10.0.0.1:53 -r 10.0.1.1:53 -m
-a --sctp-service 10.0.0.1:7000 -r 10.0.1.1 -g
-a -f 7 -r 10.0.1.1:0 -m
-a -f 7 -6 -r [2001:db8:1::2]:81 -m -w 5
-e -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 9 -x 4 -y 3
-e -t 10.0.0.1:80 -r 10.0.1.4 -i --tun-type gre --tun-csum
-e -f 7 -6 -r [2001:db8:1::2]:81 -g
-d -t 10.0.0.1:80 -r 10.0.1.1:8080
-d -t 10.0.0.1:80 -r [2001:db8:1::5]:80
-d -f 7 -6 -r [2001:db8:1::2]:81
--stop-daemon master
--stop-daemon backup
";

/// What of the service the kernel has no use for, where only its key is needed: the name of the scheduler,
/// flags, timeout and mask.
const REST_OF_SERVICE: [(u16, u16); 4] = [(1, 6), (1, 7), (1, 8), (1, 9)];
/// The family of a destination, and the kind, port and flags of a tunnel.
const OF_DESTINATION: [(u16, u16); 4] = [(2, 11), (2, 13), (2, 14), (2, 15)];
/// Method, weight and thresholds of a destination that is removed.
const REST_OF_DESTINATION: [(u16, u16); 4] = [(2, 3), (2, 4), (2, 5), (2, 6)];
/// Interface and number of a daemon that is stopped.
const REST_OF_DAEMON: [(u16, u16); 2] = [(3, 2), (3, 3)];

/// Runs a line by both programs, and returns the message of either. Which of them the kernel refuses, because
/// of what it has already, makes no difference to what is sent.
fn sent_by_both(monitor: &mut NetlinkMonitor, line: &str) -> [Vec<u8>; 2] {
    let mut sent = [original as fn(&str) -> Printed, linked].map(|execute| {
        let printed = execute(line);
        let messages = monitor.requests();
        let requests = changes(&messages);
        assert_eq!(requests.len(), 1, "{line}: {requests:?}, {printed:?}");
        let is_change = |message: &Vec<u8>| !changes(std::slice::from_ref(message)).is_empty();
        (requests, messages.into_iter().find(is_change).expect("one of them"))
    });
    assert_eq!(sent[0].0, sent[1].0, "{line}");
    sent.each_mut().map(|(_, message)| std::mem::take(message))
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn requests_of_ipvsadm_are_those_of_the_same_arguments() {
    if !guest::enter() {
        return;
    }
    add_interface();
    let mut monitor = NetlinkMonitor::start();
    for line in EQUAL.lines() {
        let [theirs, ours] = sent_by_both(&mut monitor, line);
        assert_eq!(theirs[20..], ours[20..], "{line}");
    }
    for line in MORE.lines() {
        let [theirs, ours] = sent_by_both(&mut monitor, line).map(|message| attributes(&message));
        for (number, value) in &ours {
            // Behind the four octets of an IPv4 server, ipvsadm leaves some of the service's IPv6 address.
            let is_ipv4_server = *number == (2, 1) && value[4..] == [0; 12];
            let meant = if is_ipv4_server { 4 } else { value.len() };
            let sent = theirs.get(number).map(|sent| &sent[..meant]);
            assert_eq!(sent, Some(&value[..meant]), "{line}: {number:?}");
        }
        let may_be_more: BTreeSet<(u16, u16)> = match &line[..2] {
            "-a" | "-e" => REST_OF_SERVICE.into_iter().chain(OF_DESTINATION).collect(),
            "-d" => {
                let of_destination = OF_DESTINATION.into_iter().chain(REST_OF_DESTINATION);
                REST_OF_SERVICE.into_iter().chain(of_destination).collect()
            }
            "-D" | "-Z" => REST_OF_SERVICE.into(),
            _ => REST_OF_DAEMON.into(),
        };
        let more = theirs.keys().filter(|number| !ours.contains_key(number)).copied();
        assert!(
            more.clone().all(|it| may_be_more.contains(&it)),
            "{line}: {:?}",
            Vec::from_iter(more)
        );
    }
}
