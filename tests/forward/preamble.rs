//! PROXY headers and server names.

use std::sync::mpsc::channel;

use lvs::Flow;
use lvs::forward::ProxyHeaderOptions;
use lvs::forward::proxy_protocol::{
    ParsedProxyHeader, ProxyHeader, ProxyProtocolVersion, UnixAddress, parse,
};
use lvs::forward::sni::ServerNameTable;
use lvs::scheduler::{
    DestinationHash, LocalityLeastConnections, Maglev, ReplicatedLocalityLeastConnections,
    RoundRobin,
};

use crate::fixture::*;

/// The client that a PROXY header names.
const PROXIED_CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), 50_123);
/// The address that the client of the PROXY header connected to.
const PROXIED_LOCAL: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)), 443);

/// Reads a PROXY header, byte by byte so that nothing behind the header is read.
async fn header(stream: &mut TcpStream) -> ProxyHeader {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes).expect("a header") {
            ParsedProxyHeader::Complete { header, .. } => return header,
            _ => bytes.push(stream.read_u8().await.expect("the stream is open")),
        }
    }
}

/// Returns a ClientHello with the server name `name`: version, random, no session, one cipher, no
/// compression, and the name (RFC 8446 section 4.1.2, RFC 6066 section 3).
fn hello(name: &str) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let entry = [&[0], &*with_length(name.as_bytes())].concat();
    let extension = [&[0, 0], &*with_length(&with_length(&entry))].concat();
    let body =
        [&[3, 3], &[9; 32][..], &[0], &with_length(&[0x13, 1]), &[1, 0], &with_length(&extension)]
            .concat();
    let message = [&[1, 0], &*with_length(&body)].concat();
    [&[22, 3, 1], &*with_length(&message)].concat()
}

#[tokio::test]
async fn the_backend_gets_the_address_of_the_client() {
    for (options, version) in [
        (ProxyHeaderOptions::v1(), ProxyProtocolVersion::V1),
        (ProxyHeaderOptions::v2().unique_id(true).checksum(true), ProxyProtocolVersion::V2),
    ] {
        let (address, server_listener) = bind_server().await;
        let (_set, forwarder) = forwarder_to(&[address]);
        let (handle, running) = start(forwarder.send_proxy(options));
        let (mut client, mut server) = connect_through(&handle, &server_listener).await;
        client.write_all(b"first").await.expect("the stream is open");
        let received = header(&mut server).await;
        assert_eq!(received.source(), client.local_addr().ok());
        assert_eq!(received.destination(), handle.local_addr());
        let has_tlvs = version == ProxyProtocolVersion::V2;
        assert_eq!(received.has_checksum(), has_tlvs);
        assert_eq!(received.tlvs().unique_id().map(<[u8]>::len), has_tlvs.then_some(16));
        assert_eq!(&read::<5>(&mut server).await, b"first");
        drop((client, server));
        end(&handle, running).await;
    }
}

#[tokio::test]
async fn the_client_of_the_header_is_the_client_for_limits_records_and_the_backend() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (sender, records) = channel();
    let forwarder = forwarder
        .accept_proxy(TEST_TIMEOUT)
        .max_connections_per_client(1)
        .send_proxy(ProxyHeaderOptions::v2())
        .on_end(move |record| sender.send(record.clone()).expect("the test receives records"));
    let (handle, running) = start(forwarder);
    let proxied = ProxyHeader::proxied(PROXIED_CLIENT, PROXIED_LOCAL)
        .with_unique_id(b"id-1")
        .expect("the identifier is short");
    let mut bytes = Vec::new();
    proxied.encode(ProxyProtocolVersion::V2, &mut bytes).expect("the identifier is short");
    bytes.extend_from_slice(b"early");
    let mut client = open(&handle).await;
    // In pieces, as they may arrive from a network.
    for piece in bytes.chunks(7) {
        client.write_all(piece).await.expect("the stream is open");
        tokio::task::yield_now().await;
    }
    let mut server = server_listener.accept().await.expect("the forwarder connects").0;
    let forwarded = header(&mut server).await;
    assert_eq!(forwarded.source(), Some(PROXIED_CLIENT));
    assert_eq!(forwarded.destination(), Some(PROXIED_LOCAL));
    assert_eq!(handle.connections(9)[0].local, Some(PROXIED_LOCAL));
    assert_eq!(forwarded.tlvs().unique_id(), Some(&b"id-1"[..]));
    assert_eq!(&read::<5>(&mut server).await, b"early");

    let mut same = open(&handle).await;
    same.write_all(&bytes).await.expect("the stream is open");
    until(|| handle.counters().refused.client_limit == 1).await;
    drop((client, server, same));
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.finished, 1);
    let addresses: Vec<_> =
        records.try_iter().map(|record| (record.proxied_client, record.local)).collect();
    assert_eq!(addresses, [(Some(PROXIED_CLIENT), Some(PROXIED_LOCAL)); 2]);
}

/// Whatever a header says of addresses, and whatever its TLVs hold, arrives as it was sent.
#[tokio::test]
async fn a_received_header_is_passed_on_as_it_is() {
    let unix = |path: &[u8]| UnixAddress::new(path).expect("a path");
    let headers = [
        ProxyHeader::proxied(PROXIED_CLIENT, PROXIED_LOCAL),
        ProxyHeader::proxied(PROXIED_CLIENT, "[2001:db8::1]:443".parse().expect("an address")),
        ProxyHeader::proxied("[2001:db8::7]:1".parse().expect("an address"), PROXIED_LOCAL),
        ProxyHeader::proxied(PROXIED_CLIENT, PROXIED_LOCAL).with_datagram_transport(),
        ProxyHeader::unix(unix(b""), unix(b"/run/web.sock")),
    ];
    // Types of applications, twice; one of a later specification; the name of a certificate in Latin-1.
    let tlvs = [
        &[0xea, 0, 1, 1][..],
        &[0x20, 0, 9, 7, 0, 0, 0, 0, 0x22, 0, 1, 0xe9],
        &[0x99, 0, 0],
        &[0xea, 0, 1, 2],
    ]
    .concat();
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let forwarder = forwarder.accept_proxy(TEST_TIMEOUT).send_proxy(ProxyHeaderOptions::v2());
    let (handle, running) = start(forwarder);
    for sent in headers {
        let mut bytes = Vec::new();
        sent.encode_v2(&mut bytes).expect("no TLVs");
        bytes.extend(&tlvs);
        let [high, low] = (bytes.len() as u16 - 16).to_be_bytes();
        bytes[14..16].copy_from_slice(&[high, low]);
        let mut client = open(&handle).await;
        client.write_all(&bytes).await.expect("the stream is open");
        let mut server = server_listener.accept().await.expect("the forwarder connects").0;
        let mut received = vec![0; bytes.len()];
        server.read_exact(&mut received).await.expect("the stream is open");
        assert_eq!(received, bytes, "{sent:?}");
    }
    end(&handle, running).await;
}

#[tokio::test]
async fn a_server_without_a_port_gets_the_port_of_the_header() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[SocketAddr::new(address.ip(), 0)]);
    let (handle, running) = start(forwarder.accept_proxy(TEST_TIMEOUT));
    let destination = SocketAddr::new(PROXIED_LOCAL.ip(), address.port());
    let mut bytes = Vec::new();
    ProxyHeader::proxied(PROXIED_CLIENT, destination).encode_v1(&mut bytes);
    let mut client = open(&handle).await;
    client.write_all(&bytes).await.expect("the stream is open");
    let server = server_listener.accept().await.expect("the forwarder connects");
    drop((client, server));
    end(&handle, running).await;
}

#[tokio::test]
async fn an_invalid_or_late_header_is_refused() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.accept_proxy(Duration::from_millis(50)));
    let mut invalid = open(&handle).await;
    invalid.write_all(b"GET / HTTP/1.1\r\n").await.expect("the stream is open");
    assert_reset(invalid).await;
    until(|| handle.counters().refused.bad_preamble == 1).await;
    let mut slow = open(&handle).await;
    slow.write_all(b"PROXY TCP4 192.0").await.expect("the stream is open");
    assert_reset(slow).await;
    until(|| handle.counters().refused.preamble_timeout == 1).await;
    let mut gone = open(&handle).await;
    gone.write_all(b"PROXY").await.expect("the stream is open");
    drop(gone);
    until(|| handle.counters().refused.client_left == 1).await;
    end(&handle, running).await;
}

#[tokio::test]
async fn the_server_name_selects_the_service() {
    let balancer_to = async |name| {
        let set = BackendSet::new();
        set.insert(Spec::new("0", echo(name).await)).expect("the name is new");
        Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set")
    };
    let (a, b) = (balancer_to(b'a').await, balancer_to(b'b').await);
    let names = ServerNameTable::new()
        .with_pattern("a.example", a)
        .and_then(|names| names.with_pattern("*.b.example", b));
    let names = names.expect("patterns");
    let (_set, forwarder) = forwarder_to(&[]);
    let (handle, running) = start(forwarder.services_by_server_name(TEST_TIMEOUT, names));
    for (name, server) in [("a.example", b'a'), ("x.b.example", b'b'), ("A.Example", b'a')] {
        let hello = hello(name);
        let mut client = open(&handle).await;
        client.write_all(&hello).await.expect("the stream is open");
        client.shutdown().await.expect("the stream is open");
        let answer = read_to_end(&mut client).await;
        assert_eq!((answer[0], &answer[1..]), (server, &hello[..]), "{name}");
    }
    let mut unknown_name = open(&handle).await;
    unknown_name.write_all(&hello("c.example")).await.expect("the stream is open");
    assert_reset(unknown_name).await;
    until(|| handle.counters().refused.no_service == 1).await;
    let mut plain = open(&handle).await;
    plain.write_all(b"GET /").await.expect("the stream is open");
    assert_reset(plain).await;
    until(|| handle.counters().refused.bad_preamble == 1).await;
    end(&handle, running).await;
}

/// A name that no table can list is one of the others: the default's, if there is one.
#[tokio::test]
async fn a_server_name_that_is_no_host_name_is_like_none() {
    let set = BackendSet::new();
    set.insert(Spec::new("0", echo(b'a').await)).expect("the name is new");
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    for has_default in [true, false] {
        let names = ServerNameTable::new().with_pattern("a.example", balancer.clone());
        let mut names = names.expect("a pattern");
        if has_default {
            names = names.with_default(balancer.clone());
        }
        let (_set, forwarder) = forwarder_to(&[]);
        let (handle, running) = start(forwarder.services_by_server_name(TEST_TIMEOUT, names));
        for name in ["192.0.2.1", "[2001:db8::1]", "a..b", "example.org:443", ""] {
            let hello = hello(name);
            let mut client = open(&handle).await;
            client.write_all(&hello).await.expect("the stream is open");
            if has_default {
                client.shutdown().await.expect("the stream is open");
                let answer = read_to_end(&mut client).await;
                assert_eq!((answer[0], &answer[1..]), (b'a', &hello[..]), "{name}");
            } else {
                assert_reset(client).await;
            }
        }
        let refused = if has_default { 0 } else { 5 };
        until(|| handle.counters().refused.no_service == refused).await;
        assert_eq!(handle.counters().refused.bad_preamble, 0);
        end(&handle, running).await;
    }
}

#[tokio::test]
async fn clients_without_tls_have_a_service_of_their_own() {
    let balancer_to = async |name| {
        let set = BackendSet::new();
        set.insert(Spec::new("0", echo(name).await)).expect("the name is new");
        Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set")
    };
    let (tls, plain) = (balancer_to(b't').await, balancer_to(b'p').await);
    let names = ServerNameTable::new().with_pattern("a.example", tls).expect("a pattern");
    let (_set, forwarder) = forwarder_to(&[]);
    let forwarder = forwarder.services_by_server_name(TEST_TIMEOUT, names);
    let (handle, running) = start(forwarder.service_without_tls(plain));
    let tls_hello = hello("a.example");
    for (sent, server) in [(&b"SSH-2.0-x\r\n"[..], b'p'), (b"\x16SSH", b'p'), (&tls_hello, b't')] {
        let mut client = open(&handle).await;
        client.write_all(sent).await.expect("the stream is open");
        client.shutdown().await.expect("the stream is open");
        let answer = read_to_end(&mut client).await;
        assert_eq!((answer[0], &answer[1..]), (server, sent));
    }
    // TLS that is broken, or of an unlisted name, is not another protocol.
    for (sent, refusal) in
        [(&b"\x16\x03\x01\x00\x00"[..], "bad_preamble"), (&hello("b.example"), "no_service")]
    {
        let mut client = open(&handle).await;
        client.write_all(sent).await.expect("the stream is open");
        assert_reset(client).await;
        until(|| handle.counters().refused.by_reason().any(|by| by == (refusal, 1))).await;
    }
    end(&handle, running).await;
}

#[tokio::test]
async fn the_server_name_is_the_key_of_the_flow() {
    let set = BackendSet::new();
    for name in b'a'..=b'h' {
        set.insert(Spec::new(name.to_string(), echo(name).await)).expect("the name is new");
    }
    let balancer = Balancer::new(&set, Maglev::new()).expect("a table");
    let forwarder = Forwarder::bind(LOOPBACK, balancer).expect("a free port");
    let (handle, running) = start(forwarder.key_by_server_name(TEST_TIMEOUT));
    let mut servers = Vec::new();
    for i in 0..40 {
        // Each name is sent from two addresses.
        let socket = TcpSocket::new_v4().expect("a socket");
        let client = SocketAddr::from(([127, 0, 1, i as u8], 0));
        socket.bind(client).expect("loopback");
        let mut client = socket.connect(address_of(&handle)).await.expect("the forwarder listens");
        client.write_all(&hello(&format!("{}.example", i / 2))).await.expect("the stream is open");
        servers.push(read::<1>(&mut client).await[0]);
    }
    assert!(servers.chunks(2).all(|pair| pair[0] == pair[1]), "{servers:?}");
    servers.sort_unstable();
    servers.dedup();
    assert!(servers.len() > 3, "twenty names are distributed: {servers:?}");
    end(&handle, running).await;
}

/// Sends a PROXY header with this destination; returns the connection and the name of the server.
async fn open_proxied(handle: &TcpHandle, destination: SocketAddr) -> (TcpStream, u8) {
    let mut bytes = Vec::new();
    let header = ProxyHeader::proxied(PROXIED_CLIENT, destination);
    header.encode(ProxyProtocolVersion::V2, &mut bytes).expect("no TLVs");
    let mut client = open(handle).await;
    client.write_all(&bytes).await.expect("the stream is open");
    let [server] = read(&mut client).await;
    (client, server)
}

/// Returns servers of these names, which echo, with a weight that no test exceeds.
async fn echoes(names: std::ops::RangeInclusive<u8>) -> BackendSet<SocketAddr> {
    let set = BackendSet::new();
    for name in names {
        let id = char::from(name).to_string();
        set.insert(Spec::new(id, echo(name).await).weight(100)).expect("the name is new");
    }
    set
}

#[tokio::test]
async fn dh_hashes_the_destination_of_the_proxy_header() {
    let set = echoes(b'a'..=b'h').await;
    let balancer = Balancer::new(&set, DestinationHash::new()).expect("a table");
    let forwarder = Forwarder::bind(LOOPBACK, balancer.clone()).expect("a free port");
    let (handle, running) = start(forwarder.accept_proxy(TEST_TIMEOUT));
    let mut servers = std::collections::BTreeSet::new();
    for n in 0..32 {
        let destination = SocketAddr::from(([203, 0, 113, n], 443));
        let expected = balancer.pick(&Flow::new().destination(destination)).expect("a server");
        let (_, server) = open_proxied(&handle, destination).await;
        assert_eq!(expected.id().as_str().as_bytes(), [server], "{destination}");
        servers.insert(server);
    }
    assert!(servers.len() > 3, "32 destinations are distributed: {servers:?}");
    end(&handle, running).await;
}

#[tokio::test]
async fn lblc_and_lblcr_keep_the_destination_of_the_proxy_header_on_a_server() {
    let schedulers: [Box<dyn lvs::scheduler::Scheduler>; 2] = [
        Box::new(LocalityLeastConnections::new()),
        Box::new(ReplicatedLocalityLeastConnections::new()),
    ];
    for scheduler in schedulers {
        let set = echoes(b'a'..=b'b').await;
        let balancer = Balancer::new(&set, scheduler).expect("any set");
        let forwarder = Forwarder::bind(LOOPBACK, balancer).expect("a free port");
        let (handle, running) = start(forwarder.accept_proxy(TEST_TIMEOUT));
        let [first, second] = [1, 2].map(|n| SocketAddr::from(([203, 0, 113, n], 443)));
        let mut held = Vec::new();
        let mut servers = Vec::new();
        // The second destination goes to the server with fewer connections, and stays there.
        for destination in [first, second, second, second, first, second] {
            let (client, server) = open_proxied(&handle, destination).await;
            held.push(client);
            servers.push(server);
        }
        assert_ne!(servers[0], servers[1], "each destination has a server");
        let [one, two] = [servers[0], servers[1]];
        assert_eq!(servers, [one, two, two, two, one, two]);
        drop(held);
        end(&handle, running).await;
    }
}
