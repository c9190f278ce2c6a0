//! A gigabyte each way by HTTP: the hashes that both ends compute are equal, whoever computes the checksums of
//! packets.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use lvs::engine::EngineProtocol;
use lvs::scheduler::RoundRobin;
use sha2::{Digest as _, Sha256};

use crate::carried::{begin, connect, settings, start_engine};
use crate::flows::now;
use crate::world::{SERVERS, VIRTUAL, World, namespaces, socket_address};

const CHUNK: usize = 1 << 20;
/// Chunks of a gigabyte.
pub(crate) const GIGABYTE: usize = 1 << 10;
/// Chunks of what goes without offloads: each way of sending is tested, and the tests stay short.
const LESS: usize = 64;

/// How packets leave the ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offloads {
    /// The devices get packets of up to 64 KiB with checksums that nobody has computed.
    All,
    /// One packet a segment, still without its checksum.
    Checksum,
    /// The sender computes the checksums, and the receiver checks them.
    None,
}

impl Offloads {
    pub(crate) fn set(self, world: &World) {
        let features = match self {
            Self::All => "tx on sg on tso on gso on",
            Self::Checksum => "tx on sg on tso off gso off",
            Self::None => "tx off sg off tso off gso off",
        };
        for machine in ["client", "a", "b"] {
            world.output(machine, "ethtool", &format!("-K eth0 {features}"));
            let shown = world.output(machine, "ethtool", "-k eth0");
            let shows = |feature: &str, is_on: bool| {
                let line = format!("{feature}: {}", if is_on { "on" } else { "off" });
                shown.lines().any(|shown| shown.trim().starts_with(&line))
            };
            assert!(shows("tcp-segmentation-offload", matches!(self, Self::All)), "{shown}");
            assert!(shows("tx-checksumming", !matches!(self, Self::None)), "{shown}");
        }
    }
}

/// Writes so many chunks, none like another, and returns their hash. The peer may have gone.
fn try_send_chunks(stream: &mut TcpStream, chunks: usize) -> std::io::Result<String> {
    let mut chunk: Vec<u8> = (0..CHUNK as u64).map(|n| ((n * n) >> 7) as u8).collect();
    let mut hash = Sha256::new();
    for number in 0..chunks {
        chunk[..8].copy_from_slice(&(number as u64).to_be_bytes());
        hash.update(&chunk);
        stream.write_all(&chunk)?;
    }
    Ok(hex(hash))
}

fn send_chunks(stream: &mut TcpStream, chunks: usize) -> String {
    try_send_chunks(stream, chunks).expect("the connection is open")
}

/// Writes so many chunks, and their hash after them.
pub(crate) fn send_hashed(stream: &mut TcpStream, chunks: usize) -> std::io::Result<()> {
    let hash = try_send_chunks(stream, chunks)?;
    stream.write_all(hash.as_bytes())
}

/// Reads so many chunks, and asserts that their hash is the one after them.
pub(crate) fn receive_hashed(stream: &mut TcpStream, chunks: usize) {
    let received = receive_chunks(stream, chunks);
    assert_eq!(received, read_digits(stream), "{chunks} MiB down");
}

/// Reads so many chunks and returns their hash.
fn receive_chunks(stream: &mut impl Read, chunks: usize) -> String {
    let mut chunk = vec![0; CHUNK];
    let mut hash = Sha256::new();
    for _ in 0..chunks {
        stream.read_exact(&mut chunk).expect("all octets");
        hash.update(&chunk);
    }
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Reads a message's head, and returns its first line and the number of chunks of its body.
fn read_head(stream: &mut BufReader<TcpStream>) -> Option<(String, usize)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let len = lines.iter().find_map(|line| line.strip_prefix("Content-Length: "));
    let len: usize = len.map_or(0, |len| len.parse().expect("a number"));
    Some((lines.swap_remove(0), len / CHUNK))
}

/// Serves HTTP: the hash of what was sent comes in a response of its own.
fn serve_http(stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("a duplicate"));
    let mut stream = stream;
    let mut sent = String::new();
    while let Some((request, chunks)) = read_head(&mut reader) {
        let path = request.split(' ').nth(1).expect("a path");
        let respond = |stream: &mut TcpStream, len: usize, body: &str| {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).expect("the connection is open");
        };
        if request.starts_with("PUT ") {
            let hash = receive_chunks(&mut reader, chunks);
            respond(&mut stream, hash.len(), &hash);
        } else if path == "/hash" {
            respond(&mut stream, sent.len(), &sent);
        } else {
            let chunks: usize = path.trim_start_matches('/').parse().expect("a number");
            respond(&mut stream, chunks * CHUNK, "");
            sent = send_chunks(&mut stream, chunks);
        }
    }
}

/// Returns the 64 digits of a hash that come as a response.
fn read_hash(stream: &mut BufReader<TcpStream>) -> String {
    read_head(stream).expect("a response");
    read_digits(stream)
}

fn read_digits(stream: &mut impl Read) -> String {
    let mut hash = [0; 64];
    stream.read_exact(&mut hash).expect("a hash");
    String::from_utf8(hash.to_vec()).expect("digits")
}

/// Serves HTTP on a machine.
pub(crate) fn serve_http_at(world: &World, machine: &str, address: SocketAddr) {
    let listener = world.within(machine, || TcpListener::bind(address).expect("a listener"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve_http(stream));
        }
    });
}

/// Downloads and uploads so many chunks, and compares the hashes that both ends compute.
pub(crate) fn exchange(world: &World, address: SocketAddr, chunks: usize) {
    let mut stream = connect(world, address);
    let mut reader = BufReader::new(stream.try_clone().expect("a duplicate"));
    let len = chunks * CHUNK;
    write!(stream, "GET /{chunks} HTTP/1.1\r\nHost: lvs\r\n\r\n").expect("a request");
    let (status, sent) = read_head(&mut reader).expect("a response");
    assert_eq!((&*status, sent), ("HTTP/1.1 200 OK", chunks));
    let received = receive_chunks(&mut reader, chunks);
    write!(stream, "GET /hash HTTP/1.1\r\nHost: lvs\r\n\r\n").expect("a request");
    assert_eq!(received, read_hash(&mut reader), "{chunks} MiB down");

    write!(stream, "PUT / HTTP/1.1\r\nHost: lvs\r\nContent-Length: {len}\r\n\r\n")
        .expect("a request");
    let sent = send_chunks(&mut stream, chunks);
    assert_eq!(sent, read_hash(&mut reader), "{chunks} MiB up");
}

/// Returns what the kernel of a machine has counted of a protocol over IPv4, such as `Tcp`.
pub(crate) fn kernel_count(world: &World, machine: &str, protocol: &str, name: &str) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp").expect("statistics");
    let text = world.within(machine, read);
    let head = format!("{protocol}: ");
    let mut lines = text.lines().filter(|line| line.starts_with(&head));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, count) = pairs.find(|(known, _)| *known == name).expect("the counter");
    count.parse().expect("a number")
}

#[test]
fn a_gigabyte_each_way_arrives_as_it_was_sent() {
    if !namespaces::can_run(&["ethtool"]) {
        return;
    }
    let Some(world) = World::build() else { return };
    let engine = start_engine(&world, settings(&world));
    let mut services = Vec::new();
    for family in [0, 1] {
        for (machine, server) in ["a", "b"].into_iter().zip(SERVERS[family]) {
            serve_http_at(&world, machine, socket_address(server, 8080));
        }
        services.push(begin(&engine, EngineProtocol::Tcp, family, RoundRobin::new()));
    }
    for (offloads, family, chunks) in [
        (Offloads::All, 0, GIGABYTE),
        (Offloads::All, 1, GIGABYTE / 4),
        (Offloads::Checksum, 0, LESS),
        (Offloads::Checksum, 1, LESS),
        (Offloads::None, 0, LESS),
        (Offloads::None, 1, LESS),
    ] {
        offloads.set(&world);
        let begun_at = now();
        // To each server once.
        for _ in ["a", "b"] {
            exchange(&world, socket_address(VIRTUAL[family], 80), chunks / 2);
        }
        let took = now() - begun_at;
        println!("{offloads:?}, {}: {chunks} MiB each way in {took:?}", VIRTUAL[family]);
    }
    for machine in ["client", "a", "b"] {
        assert_eq!(kernel_count(&world, machine, "Tcp", "InCsumErrors"), 0, "{machine}");
    }
}
