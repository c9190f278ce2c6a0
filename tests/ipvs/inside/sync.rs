//! The messages of the kernel's synchronization daemon: what a master sends is parsed, and what is
//! encoded is accepted by a backup.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lvs::ipvs::{
    IpvsDaemon, IpvsDaemonState, IpvsDestination, IpvsFamily, IpvsForwarding, IpvsPersistence,
    IpvsService, IpvsServiceKey, IpvsSyncConnection, IpvsSyncMessage,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::SockRef;

use super::{client, proc_net, run, tcp, udp, wait_for};
use crate::guest;

const LIMIT: Duration = Duration::from_secs(30);

/// Connects this namespace to one with this name, by `sync0` (10.8.0.1) and `sync1` (10.8.0.2).
fn connect_peer(name: &str) {
    run("ip", &format!("netns add {name}"));
    run("ip", &format!("link add sync0 type veth peer name sync1 netns {name}"));
    run("ip", "address add 10.8.0.1/24 dev sync0");
    run("ip", "link set sync0 up");
    run("ip", &format!("-n {name} address add 10.8.0.2/24 dev sync1"));
    run("ip", &format!("-n {name} link set sync1 up"));
    run("ip", &format!("-n {name} link set lo up"));
}

/// Moves this thread into the namespace with this name.
pub(crate) fn enter_peer(name: &str) {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Adds a service with this machine as its server.
fn add_local_service(mut service: IpvsService, server: std::net::SocketAddr) {
    let mut ipvs = client();
    if let IpvsServiceKey::Address { address, .. } = service.key
        && address.port() == 5060
    {
        service.persistence = Some(IpvsPersistence::new(IpvsFamily::V4, 60));
        service.persistence_engine = Some("sip".to_owned());
    }
    ipvs.add_service(&service).unwrap();
    let server = IpvsDestination::new(server, IpvsForwarding::Nat);
    ipvs.add_destination(&service.key, &server).unwrap();
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn what_a_master_sends_is_parsed_and_encoded_to_the_same_bytes() {
    if !guest::enter() {
        return;
    }
    connect_peer("receiver");
    run("ip", "address add 10.0.0.1/32 dev lo");
    run("ip", "address add fd00::1/128 dev lo nodad");
    // Each packet is a reason to send the connection.
    fs::write("/proc/sys/net/ipv4/vs/sync_threshold", "0 1").unwrap();
    let (sender, datagrams) = mpsc::channel();
    let (is_ready, ready) = mpsc::channel();
    thread::spawn(move || {
        enter_peer("receiver");
        let socket = UdpSocket::bind("0.0.0.0:8848").unwrap();
        socket.join_multicast_v4(&[224, 0, 0, 81].into(), &[10, 8, 0, 2].into()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        is_ready.send(()).unwrap();
        let mut buffer = [0; 65_536];
        while let Ok(len) = socket.recv(&mut buffer) {
            if sender.send(buffer[..len].to_vec()).is_err() {
                break;
            }
        }
    });
    ready.recv().unwrap();
    client().start_daemon(&IpvsDaemon::new(IpvsDaemonState::Master, "sync0", 7)).unwrap();

    let server4 = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server6 = UdpSocket::bind("[::1]:0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for key in [udp("10.0.0.1:5300"), udp("10.0.0.1:5060")] {
        add_local_service(IpvsService::new(key, "rr"), server4.local_addr().unwrap());
    }
    add_local_service(IpvsService::new(udp("[fd00::1]:5300"), "rr"), server6.local_addr().unwrap());
    add_local_service(IpvsService::new(tcp("10.0.0.1:80"), "rr"), listener.local_addr().unwrap());
    let client4 = UdpSocket::bind("127.0.0.1:0").unwrap();
    client4.send_to(b"text", "10.0.0.1:5300").unwrap();
    let call = b"OPTIONS sip:10.0.0.1 SIP/2.0\r\nCall-ID: a-call@host\r\n\r\n";
    client4.send_to(call, "10.0.0.1:5060").unwrap();
    let client6 = UdpSocket::bind("[::1]:0").unwrap();
    client6.send_to(b"text", "[fd00::1]:5300").unwrap();
    let stream = TcpStream::connect("10.0.0.1:80").unwrap();

    let mut connections: Vec<IpvsSyncConnection> = Vec::new();
    let find = |all: &[IpvsSyncConnection], is_it: &dyn Fn(&IpvsSyncConnection) -> bool| {
        all.iter().find(|it| is_it(it)).cloned()
    };
    let source4 = client4.local_addr().unwrap();
    let is_udp4 =
        |it: &IpvsSyncConnection| it.client == source4 && it.virtual_address.port() == 5300;
    let is_udp6 = |it: &IpvsSyncConnection| it.client == client6.local_addr().unwrap();
    let is_call = |it: &IpvsSyncConnection| it.is_template();
    let is_tcp = |it: &IpvsSyncConnection| it.client == stream.local_addr().unwrap();
    let searches: [&dyn Fn(&IpvsSyncConnection) -> bool; 4] =
        [&is_udp4, &is_udp6, &is_call, &is_tcp];
    while searches.iter().any(|is_it| find(&connections, is_it).is_none()) {
        let datagram = datagrams.recv_timeout(LIMIT).expect("the daemon sends");
        let message = IpvsSyncMessage::parse(&datagram).expect("the message is valid");
        assert_eq!(message.sync_id(), 7);
        let parsed: Vec<_> = message.connections().collect();
        let encoded = IpvsSyncMessage::encode(7, &parsed, u16::MAX).unwrap();
        assert_eq!(encoded, std::slice::from_ref(&datagram));
        connections.extend(parsed);
    }
    let [udp4, udp6, call, tcp] = searches.map(|is_it| find(&connections, is_it).unwrap());
    assert_eq!((udp4.protocol, udp4.virtual_address), (17, "10.0.0.1:5300".parse().unwrap()));
    assert_eq!(udp4.destination, server4.local_addr().unwrap());
    assert!(udp4.timeout_secs <= 300 && !udp4.is_template(), "{udp4:?}");
    assert_eq!((udp6.protocol, udp6.virtual_address), (17, "[fd00::1]:5300".parse().unwrap()));
    assert_eq!(udp6.destination, server6.local_addr().unwrap());
    assert_eq!(call.engine.as_deref(), Some("sip"));
    assert_eq!(call.engine_data, b"a-call@host");
    assert_eq!((call.client.ip(), call.client.port()), (source4.ip(), 0));
    assert_eq!((tcp.protocol, tcp.destination), (6, listener.local_addr().unwrap()));
    client().stop_daemon(IpvsDaemonState::Master).unwrap();
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn what_is_encoded_is_accepted_by_a_backup() {
    if !guest::enter() {
        return;
    }
    connect_peer("backup");
    let (is_ready, ready) = mpsc::channel();
    let backup = thread::spawn(move || {
        enter_peer("backup");
        let mut ipvs = client();
        let key = tcp("10.0.0.1:80");
        ipvs.add_service(&IpvsService::new(key, "rr")).unwrap();
        let server = IpvsDestination::new("10.0.1.1:8080".parse().unwrap(), IpvsForwarding::Nat);
        ipvs.add_destination(&key, &server).unwrap();
        ipvs.start_daemon(&IpvsDaemon::new(IpvsDaemonState::Backup, "sync1", 7)).unwrap();
        is_ready.send(()).unwrap();
        let rows = wait_for(|| {
            // Without the seconds that are left. While one is added, another may be listed twice.
            let words = |row: &str| row.split_whitespace().take(8).collect::<Vec<_>>().join(" ");
            let rows: BTreeSet<_> = proc_net("ip_vs_conn").lines().skip(1).map(words).collect();
            (rows.len() >= 3).then_some(rows)
        });
        let counts = ipvs.destinations(&key).unwrap();
        ipvs.stop_daemon(IpvsDaemonState::Backup).unwrap();
        (rows, counts[0].active_connections)
    });
    let address = |text: &str| text.parse().unwrap();
    let established = IpvsSyncConnection::new(
        address("192.0.2.7:50001"),
        address("10.0.0.1:80"),
        address("10.0.1.1:8080"),
    );
    let six = IpvsSyncConnection::new(
        address("[2001:db8::7]:50001"),
        address("[2001:db8::1]:80"),
        address("[2001:db8::2]:80"),
    );
    let mut call = IpvsSyncConnection::new(
        address("192.0.2.8:0"),
        address("10.0.0.1:5060"),
        address("10.0.1.1:5060"),
    );
    (call.protocol, call.flags, call.state, call.timeout_secs) = (17, 0x1000, 0, 60);
    call.engine_data = b"a-call@host".to_vec();
    call.engine = Some("sip".to_owned());
    ready.recv_timeout(LIMIT).expect("the backup starts");
    let datagrams = IpvsSyncMessage::encode(7, &[established, call, six], 1472).unwrap();
    let socket = UdpSocket::bind("10.8.0.1:0").unwrap();
    SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::new(10, 8, 0, 1)).unwrap();
    for datagram in &datagrams {
        socket.send_to(datagram, "224.0.0.81:8848").unwrap();
    }
    let (rows, active_connections) = backup.join().unwrap();
    let rows: Vec<_> = rows.into_iter().collect();
    let expected = [
        "TCP 2001:0db8:0000:0000:0000:0000:0000:0007 C351 2001:0db8:0000:0000:0000:0000:0000:0001 0050 \
         2001:0db8:0000:0000:0000:0000:0000:0002 0050 ESTABLISHED",
        "TCP C0000207 C351 0A000001 0050 0A000101 1F90 ESTABLISHED",
        "UDP C0000208 0000 0A000001 13C4 0A000101 13C4 NONE",
    ];
    assert_eq!((rows, active_connections), (expected.map(str::to_owned).to_vec(), 1));
}
