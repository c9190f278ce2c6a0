//! Messages byte for byte. Those that kernels send and accept are in `tests/ipvs/inside/sync.rs`.

use super::super::sync_connection::IpvsSequence;
use super::*;

fn connection(addresses: [&str; 3]) -> IpvsSyncConnection {
    let [client, virtual_address, destination] =
        addresses.map(|text| text.parse().expect("an address"));
    IpvsSyncConnection::new(client, virtual_address, destination)
}

fn v4() -> IpvsSyncConnection {
    connection(["192.0.2.7:50001", "10.0.0.1:80", "10.0.1.1:8080"])
}

fn v6() -> IpvsSyncConnection {
    connection(["[2001:db8::7]:50001", "[2001:db8::1]:80", "[2001:db8::2]:80"])
}

/// A connection with every option; its length is no multiple of four.
fn with_options() -> IpvsSyncConnection {
    let mut it = v4();
    (it.protocol, it.flags, it.state) = (17, 0x1100, 0);
    (it.mark, it.timeout_secs) = (7, 60);
    it.sequences = Some([IpvsSequence::new(1, 2, 3), IpvsSequence::new(4, u32::MAX, 6)]);
    it.engine_data = b"a-call@host".to_vec();
    it.engine = Some("sip".to_owned());
    it
}

/// What the daemon of Linux 6.1 sent of three UDP connections, a SIP call's template, and a TCP
/// connection.
#[rustfmt::skip]
const CAPTURED: [u8; 244] = [
    0, 7, 0, 244, 5, 1, 0, 0, 0, 17, 0, 36, 0, 0, 1, 0, 0, 0, 215, 236,
    20, 180, 166, 217, 0, 0, 0, 0, 0, 0, 1, 44, 127, 0, 0, 1, 10, 0, 0, 1,
    127, 0, 0, 1, 0, 17, 0, 36, 0, 0, 1, 0, 0, 0, 215, 236, 19, 196, 166, 217,
    0, 0, 0, 0, 0, 0, 1, 44, 127, 0, 0, 1, 10, 0, 0, 1, 127, 0, 0, 1,
    0, 17, 0, 54, 0, 0, 17, 0, 0, 0, 0, 0, 19, 196, 166, 217, 0, 0, 0, 0,
    0, 0, 0, 60, 127, 0, 0, 1, 10, 0, 0, 1, 127, 0, 0, 1, 2, 11, 97, 45,
    99, 97, 108, 108, 64, 104, 111, 115, 116, 3, 3, 115, 105, 112, 0, 0, 1, 17, 0, 72,
    0, 0, 1, 0, 0, 0, 155, 69, 20, 180, 184, 54, 0, 0, 0, 0, 0, 0, 1, 44,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 253, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 1, 0, 6, 0, 36, 0, 0, 0, 0, 0, 1, 237, 60,
    0, 80, 179, 77, 0, 0, 0, 0, 0, 0, 3, 132, 10, 0, 0, 1, 10, 0, 0, 1,
    127, 0, 0, 1,
];

#[test]
fn a_message_of_a_kernel_is_parsed_and_encoded_to_the_same_bytes() {
    let message = IpvsSyncMessage::parse(&CAPTURED).unwrap();
    let all: Vec<_> = message.connections().collect();
    assert_eq!(IpvsSyncMessage::encode(message.sync_id(), &all, 1472), Ok(vec![CAPTURED.to_vec()]));
    let mut datagram = connection(["127.0.0.1:55276", "10.0.0.1:5300", "127.0.0.1:42713"]);
    (datagram.protocol, datagram.flags, datagram.state, datagram.timeout_secs) =
        (17, 0x100, 0, 300);
    assert_eq!(all[0], datagram);
    let mut call = connection(["127.0.0.1:0", "10.0.0.1:5060", "127.0.0.1:42713"]);
    (call.protocol, call.flags, call.state, call.timeout_secs) = (17, 0x1100, 0, 60);
    call.engine_data = b"a-call@host".to_vec();
    call.engine = Some("sip".to_owned());
    assert_eq!(all[2], call);
    let mut six = connection(["[::1]:39749", "[fd00::1]:5300", "[::1]:47158"]);
    (six.protocol, six.flags, six.state, six.timeout_secs) = (17, 0x100, 0, 300);
    assert_eq!(all[3], six);
    assert_eq!(all[4], connection(["10.0.0.1:60732", "10.0.0.1:80", "127.0.0.1:45901"]));
}

#[test]
fn a_message_is_laid_out_as_the_kernels() {
    let message = IpvsSyncMessage::encode(7, &[with_options(), v4()], 1472).unwrap();
    #[rustfmt::skip]
    let expected = [
        0, 7, 0, 124, 2, 1, 0, 0,
        0, 17, 0, 80, 0, 0, 0x11, 0, 0, 0, 0xc3, 0x51, 0, 80, 0x1f, 0x90, 0, 0, 0, 7, 0, 0, 0, 60,
        192, 0, 2, 7, 10, 0, 0, 1, 10, 0, 1, 1,
        1, 24, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 255, 255, 255, 255, 0, 0, 0, 6,
        2, 11, b'a', b'-', b'c', b'a', b'l', b'l', b'@', b'h', b'o', b's', b't',
        3, 3, b's', b'i', b'p',
        0, 6, 0, 36, 0, 0, 0, 0, 0, 1, 0xc3, 0x51, 0, 80, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 3, 0x84,
        192, 0, 2, 7, 10, 0, 0, 1, 10, 0, 1, 1,
    ];
    assert_eq!(message, [expected]);
    assert!(with_options().is_template() && with_options().is_inactive());
}

#[test]
fn what_is_encoded_is_parsed_to_the_same() {
    let mut odd = with_options();
    odd.engine_data.pop();
    let all = [odd, v6(), with_options(), v4(), v6()];
    let datagrams = IpvsSyncMessage::encode(0, &all, 1472).unwrap();
    let parsed = IpvsSyncMessage::parse(&datagrams[0]).unwrap();
    assert_eq!(parsed.connections().collect::<Vec<_>>(), all);
    // A datagram is filled up to the last octet, and to 255 connections.
    let datagrams = IpvsSyncMessage::encode(0, &vec![v4(); 600], 8 + 3 * 36).unwrap();
    assert_eq!(datagrams.len(), 200);
    let datagrams = IpvsSyncMessage::encode(0, &vec![v4(); 600], u16::MAX).unwrap();
    let counts =
        datagrams.iter().map(|it| IpvsSyncMessage::parse(it).unwrap().connections().count());
    assert_eq!(counts.collect::<Vec<_>>(), [255, 255, 90]);
    assert_eq!(IpvsSyncMessage::encode(0, &[], 0), Ok(vec![]));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |connection, max_len| {
        IpvsSyncMessage::encode(0, &[connection], max_len).unwrap_err().setting
    };
    let mut mixed = v4();
    mixed.destination = v6().destination;
    let mut long_name = with_options();
    long_name.engine = Some("seventeen octets.".to_owned());
    let mut long_data = with_options();
    long_data.engine_data = vec![1; 256];
    let found = [
        refused(mixed, 1472),
        refused(long_name, 1472),
        refused(long_data, 1472),
        refused(v4(), 8 + 35),
    ];
    assert_eq!(found, ["client", "engine", "engine_data", "max_len"]);
}

#[test]
fn no_cut_or_changed_message_is_accepted() {
    let bytes = IpvsSyncMessage::encode(7, &[with_options(), v6()], 1472).unwrap().remove(0);
    let parse = |bytes: &[u8]| IpvsSyncMessage::parse(bytes).map(drop);
    assert_eq!(parse(&bytes), Ok(()));
    for len in 0..bytes.len() {
        let mut cut = bytes[..len].to_vec();
        assert!(parse(&cut).is_err());
        if len >= 8 {
            cut[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            assert!(parse(&cut).is_err(), "{len}");
        }
    }
    let changed = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        parse(&bytes)
    };
    assert_eq!(changed(0, 3), Err(IpvsSyncError::Version));
    assert_eq!(changed(5, 2), Err(IpvsSyncError::Version));
    assert_eq!(changed(3, 9), Err(IpvsSyncError::Size { stated: 9, actual: bytes.len() }));
    assert_eq!(changed(4, 3), Err(IpvsSyncError::Truncated("connection")));
    assert_eq!(changed(8, 2), Err(IpvsSyncError::ConnectionType(2)));
    assert_eq!(changed(10, 0x10), Err(IpvsSyncError::Version));
    assert_eq!(changed(11, 0), Err(IpvsSyncError::Truncated("connection")));
    let options = 8 + 36;
    assert_eq!(changed(options, 9), Err(IpvsSyncError::UnknownOption(9)));
    assert_eq!(changed(options, 0x49), Ok(()), "an unknown option that may be ignored");
    assert_eq!(changed(options, 0x41), Ok(()), "a known one that others may ignore");
    assert_eq!(changed(options + 1, 0), Err(IpvsSyncError::MalformedOption(1)));
    // Twice the engine's data.
    assert_eq!(changed(options + 26 + 13, 2), Err(IpvsSyncError::MalformedOption(2)));
}
