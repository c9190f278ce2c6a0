//! What comes before the first byte: PROXY headers and server names.

use std::sync::mpsc::channel;

use lvs::forward::ProxyHeaderOptions;
use lvs::forward::proxy_protocol::{ParsedProxyHeader, ProxyHeader, ProxyProtocolVersion, parse};
use lvs::forward::sni::ServerNameTable;
use lvs::scheduler::{Maglev, RoundRobin};

use crate::world::*;

/// A client that somebody else speaks for.
const FAR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), 50_123);
const ASKED: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)), 443);

/// Reads a PROXY header off a stream, byte by byte so that nothing behind it is taken.
async fn header(stream: &mut TcpStream) -> ProxyHeader {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes).expect("a header") {
            ParsedProxyHeader::Complete { header, .. } => return header,
            _ => bytes.push(stream.read_u8().await.expect("open")),
        }
    }
}

/// The ClientHello of somebody who asks for `name`: version, random, no session, one cipher, no
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
async fn the_backend_is_told_who_the_client_is() {
    for (out, version) in [
        (ProxyHeaderOptions::v1(), ProxyProtocolVersion::V1),
        (ProxyHeaderOptions::v2().unique_id(true).checksum(true), ProxyProtocolVersion::V2),
    ] {
        let (address, stage) = stage().await;
        let (_set, forwarder) = world(&[address]);
        let (handle, running) = start(forwarder.send_proxy(out));
        let (mut client, mut server) = meet(&handle, &stage).await;
        client.write_all(b"first").await.expect("open");
        let told = header(&mut server).await;
        assert_eq!(told.source(), client.local_addr().ok());
        assert_eq!(told.destination(), handle.local_addr());
        let rich = version == ProxyProtocolVersion::V2;
        assert_eq!(told.has_checksum(), rich);
        assert_eq!(told.tlvs().unique_id().map(<[u8]>::len), rich.then_some(16));
        assert_eq!(&read::<5>(&mut server).await, b"first");
        drop((client, server));
        end(&handle, running).await;
    }
}

#[tokio::test]
async fn a_client_is_whom_its_header_names_all_the_way() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (tell, told) = channel();
    let forwarder = forwarder
        .accept_proxy(LONG)
        .max_connections_per_client(1)
        .send_proxy(ProxyHeaderOptions::v2())
        .on_end(move |record| tell.send(record.clone()).expect("heard"));
    let (handle, running) = start(forwarder);
    let from_far = ProxyHeader::proxied(FAR, ASKED).with_unique_id(b"id-1").expect("short");
    let mut bytes = Vec::new();
    from_far.encode(ProxyProtocolVersion::V2, &mut bytes).expect("short");
    bytes.extend_from_slice(b"early");
    let mut client = open(&handle).await;
    // In pieces, as a network may bring it.
    for piece in bytes.chunks(7) {
        client.write_all(piece).await.expect("open");
        tokio::task::yield_now().await;
    }
    let mut server = stage.accept().await.expect("the forwarder connects").0;
    let passed_on = header(&mut server).await;
    assert_eq!(passed_on.source(), Some(FAR));
    assert_eq!(passed_on.tlvs().unique_id(), Some(&b"id-1"[..]));
    assert_eq!(&read::<5>(&mut server).await, b"early");

    let mut same = open(&handle).await;
    same.write_all(&bytes).await.expect("open");
    until(|| handle.counters().refused.client_limit == 1).await;
    drop((client, server, same));
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.finished, 1);
    let clients: Vec<_> = told.try_iter().map(|record| record.proxied_client).collect();
    assert_eq!(clients, [Some(FAR), Some(FAR)]);
}

#[tokio::test]
async fn a_wrong_or_late_header_is_refused() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.accept_proxy(Duration::from_millis(50)));
    let mut wrong = open(&handle).await;
    wrong.write_all(b"GET / HTTP/1.1\r\n").await.expect("open");
    assert_reset(wrong).await;
    until(|| handle.counters().refused.bad_preamble == 1).await;
    let mut slow = open(&handle).await;
    slow.write_all(b"PROXY TCP4 192.0").await.expect("open");
    assert_reset(slow).await;
    until(|| handle.counters().refused.preamble_timeout == 1).await;
    let mut gone = open(&handle).await;
    gone.write_all(b"PROXY").await.expect("open");
    drop(gone);
    until(|| handle.counters().refused.client_left == 1).await;
    end(&handle, running).await;
}

#[tokio::test]
async fn the_server_name_chooses_the_service() {
    let of = async |name| {
        let set = BackendSet::new();
        set.insert(Spec::new("0", echo(name).await)).expect("a new name");
        Balancer::new(&set, RoundRobin).expect("rr takes any set")
    };
    let (a, b) = (of(b'a').await, of(b'b').await);
    let names = ServerNameTable::new()
        .with_pattern("a.example", a)
        .and_then(|names| names.with_pattern("*.b.example", b));
    let names = names.expect("patterns");
    let (_set, forwarder) = world(&[]);
    let (handle, running) = start(forwarder.services_by_server_name(LONG, names));
    for (name, server) in [("a.example", b'a'), ("x.b.example", b'b'), ("A.Example", b'a')] {
        let hello = hello(name);
        let mut client = open(&handle).await;
        client.write_all(&hello).await.expect("open");
        client.shutdown().await.expect("open");
        let answer = all_of(&mut client).await;
        assert_eq!((answer[0], &answer[1..]), (server, &hello[..]), "{name}");
    }
    let mut stranger = open(&handle).await;
    stranger.write_all(&hello("c.example")).await.expect("open");
    assert_reset(stranger).await;
    until(|| handle.counters().refused.no_service == 1).await;
    let mut plain = open(&handle).await;
    plain.write_all(b"GET /").await.expect("open");
    assert_reset(plain).await;
    until(|| handle.counters().refused.bad_preamble == 1).await;
    end(&handle, running).await;
}

#[tokio::test]
async fn the_server_name_is_the_key() {
    let set = BackendSet::new();
    for name in b'a'..=b'h' {
        set.insert(Spec::new(name.to_string(), echo(name).await)).expect("a new name");
    }
    let balancer = Balancer::new(&set, Maglev::new()).expect("a table");
    let forwarder = Forwarder::bind(LOOPBACK, balancer).expect("a free port");
    let (handle, running) = start(forwarder.key_by_server_name(LONG));
    let mut servers = Vec::new();
    for i in 0..40 {
        // Each name from two addresses.
        let socket = TcpSocket::new_v4().expect("a socket");
        let client = SocketAddr::from(([127, 0, 1, i as u8], 0));
        socket.bind(client).expect("loopback");
        let mut client = socket.connect(at(&handle)).await.expect("the forwarder listens");
        client.write_all(&hello(&format!("{}.example", i / 2))).await.expect("open");
        servers.push(read::<1>(&mut client).await[0]);
    }
    assert!(servers.chunks(2).all(|pair| pair[0] == pair[1]), "{servers:?}");
    servers.sort_unstable();
    servers.dedup();
    assert!(servers.len() > 3, "twenty names are spread: {servers:?}");
    end(&handle, running).await;
}
