//! Answers and requests of other programs, byte for byte.
//!
//! The message images are those that google/seesaw publishes for its own codec, recorded from a kernel.

use std::net::SocketAddr;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};

use super::super::address::IpvsFamily;
use super::super::daemon::{IpvsDaemon, IpvsDaemonState, IpvsInfo, IpvsTimeouts};
use super::super::destination::{
    IpvsDestination, IpvsDestinationStatus, IpvsForwarding, IpvsTunnel, IpvsTunnelChecksum,
};
use super::super::message::GenericMessage;
use super::super::request::IpvsRequest;
use super::super::service::{
    IpvsNetmask, IpvsPersistence, IpvsSchedulerFlags, IpvsService, IpvsServiceKey,
};
use super::super::stats::IpvsStats;
use super::IpvsReply;

const ADD_DESTINATION: [u8; 108] = [
    0x6c, 0x00, 0x00, 0x00, 0x19, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x01, 0x00, 0x00, 0x58, 0x00, 0x02, 0x80, 0x14, 0x00, 0x01, 0x00, 0x20, 0x02, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xca, 0xfe, 0x06, 0x00, 0x02, 0x00,
    0x00, 0x35, 0x00, 0x00, 0x08, 0x00, 0x03, 0x00, 0xf4, 0xf3, 0xf2, 0xf1, 0x08, 0x00, 0x04, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x08, 0x00, 0x05, 0x00, 0xd0, 0x07, 0x00, 0x00, 0x08, 0x00, 0x06, 0x00,
    0xe8, 0x03, 0x00, 0x00, 0x08, 0x00, 0x07, 0x00, 0x4e, 0x61, 0xbc, 0x00, 0x08, 0x00, 0x08, 0x00,
    0xb1, 0x7f, 0x39, 0x05, 0x08, 0x00, 0x09, 0x00, 0xd2, 0x04, 0x00, 0x00,
];

const DESTINATION: [u8; 200] = [
    0xc8, 0x00, 0x00, 0x00, 0x19, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x01, 0x00, 0x00, 0xb4, 0x00, 0x02, 0x00, 0x14, 0x00, 0x01, 0x00, 0x20, 0x02, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xca, 0xfe, 0x06, 0x00, 0x02, 0x00,
    0x00, 0x35, 0x00, 0x00, 0x08, 0x00, 0x03, 0x00, 0xf4, 0xf3, 0xf2, 0xf1, 0x08, 0x00, 0x04, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x08, 0x00, 0x05, 0x00, 0xd0, 0x07, 0x00, 0x00, 0x08, 0x00, 0x06, 0x00,
    0xe8, 0x03, 0x00, 0x00, 0x08, 0x00, 0x07, 0x00, 0x4e, 0x61, 0xbc, 0x00, 0x08, 0x00, 0x08, 0x00,
    0xb1, 0x7f, 0x39, 0x05, 0x08, 0x00, 0x09, 0x00, 0xd2, 0x04, 0x00, 0x00, 0x5c, 0x00, 0x0a, 0x00,
    0x08, 0x00, 0x01, 0x00, 0x03, 0x00, 0x00, 0x00, 0x08, 0x00, 0x02, 0x00, 0x0c, 0x00, 0x00, 0x00,
    0x08, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x04, 0x00, 0x1a, 0x04, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x08, 0x00, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x07, 0x00, 0x01, 0x00, 0x00, 0x00,
    0x08, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x09, 0x00, 0x54, 0x00, 0x00, 0x00,
    0x08, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x00, 0x00,
];

const ADD_SERVICE: [u8; 104] = [
    0x68, 0x00, 0x00, 0x00, 0x19, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x01, 0x00, 0x00, 0x54, 0x00, 0x01, 0x80, 0x06, 0x00, 0x01, 0x00, 0x02, 0x00, 0x00, 0x00,
    0x06, 0x00, 0x02, 0x00, 0x06, 0x00, 0x00, 0x00, 0x14, 0x00, 0x03, 0x00, 0x01, 0x01, 0x01, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06, 0x00, 0x04, 0x00,
    0x50, 0x00, 0x00, 0x00, 0x08, 0x00, 0x06, 0x00, 0x77, 0x6c, 0x63, 0x00, 0x0c, 0x00, 0x07, 0x00,
    0xf4, 0xf3, 0xf2, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x08, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x08, 0x00, 0x09, 0x00, 0xff, 0xff, 0xff, 0xff,
];

const SERVICE: [u8; 196] = [
    0xc4, 0x00, 0x00, 0x00, 0x16, 0x00, 0x02, 0x00, 0xb0, 0xb3, 0xc8, 0x55, 0x79, 0x02, 0x00, 0x00,
    0x01, 0x01, 0x00, 0x00, 0xb0, 0x00, 0x01, 0x00, 0x06, 0x00, 0x01, 0x00, 0x02, 0x00, 0x00, 0x00,
    0x06, 0x00, 0x02, 0x00, 0x06, 0x00, 0x00, 0x00, 0x14, 0x00, 0x03, 0x00, 0x01, 0x01, 0x01, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06, 0x00, 0x04, 0x00,
    0x50, 0x00, 0x00, 0x00, 0x07, 0x00, 0x06, 0x00, 0x77, 0x6c, 0x63, 0x00, 0x0c, 0x00, 0x07, 0x00,
    0xf4, 0xf3, 0xf2, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x08, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x08, 0x00, 0x09, 0x00, 0xff, 0xff, 0xff, 0xff, 0x5c, 0x00, 0x0a, 0x00, 0x08, 0x00, 0x01, 0x00,
    0x03, 0x00, 0x00, 0x00, 0x08, 0x00, 0x02, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x08, 0x00, 0x03, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x04, 0x00, 0x1a, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x0c, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x06, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x07, 0x00, 0x01, 0x00, 0x00, 0x00, 0x08, 0x00, 0x08, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x09, 0x00, 0x54, 0x00, 0x00, 0x00, 0x08, 0x00, 0x0a, 0x00,
    0x00, 0x00, 0x00, 0x00,
];

fn stats_of_the_images() -> IpvsStats {
    IpvsStats {
        connections: 3,
        incoming_packets: 12,
        incoming_bytes: 0x41a,
        incoming_packet_rate: 1,
        incoming_byte_rate: 0x54,
        ..IpvsStats::default()
    }
}

fn service_of_the_images() -> IpvsService {
    let key = IpvsServiceKey::tcp(SocketAddr::from(([1, 1, 1, 1], 0x5000)));
    let mut service = IpvsService::new(key, "wlc");
    // The flags 0xf1f2f3f4, of which some have a meaning.
    service.one_packet = true;
    service.scheduler_flags.flag2 = true;
    service.scheduler_flags.flag3 = true;
    service.other_flags = 0xf1f2_f3c0;
    service
}

fn destination_of_the_images() -> IpvsDestinationStatus {
    let address = "[2002::cafe]:53".parse().expect("an address");
    let mut destination = IpvsDestination::new(address, IpvsForwarding::Other(0xf1f2_f3f4));
    destination.upper_threshold = 2000;
    destination.lower_threshold = 1000;
    IpvsDestinationStatus {
        destination,
        active_connections: 12_345_678,
        inactive_connections: 87_654_321,
        persistent_connections: 1234,
        stats: IpvsStats::default(),
    }
}

/// Parses an image into its message.
fn message(image: &[u8]) -> GenericMessage {
    let message = NetlinkMessage::<GenericMessage>::deserialize(image).expect("a message");
    let NetlinkPayload::InnerMessage(message) = message.payload else { panic!("not of a family") };
    message
}

fn decode(message: &GenericMessage) -> IpvsReply {
    let reply = IpvsReply::decode(message.command, &message.attributes, IpvsFamily::V4);
    reply.expect("well formed").expect("a known command")
}

/// Encodes a request of the family 25, as the images are, without netlink's flags.
fn image(request: &IpvsRequest) -> Vec<u8> {
    let mut bytes = request.encode(0x19).expect("the values fit").encode(0, false);
    bytes[6..8].fill(0);
    bytes
}

#[test]
fn a_service_is_encoded_to_the_published_bytes() {
    assert_eq!(image(&IpvsRequest::AddService(service_of_the_images())), ADD_SERVICE);
}

#[test]
fn a_service_is_decoded_from_the_published_bytes() {
    let IpvsReply::Service(status) = decode(&message(&SERVICE)) else { panic!("not a service") };
    assert_eq!(status.service, service_of_the_images());
    assert_eq!(status.stats, stats_of_the_images());
}

#[test]
fn a_destination_is_encoded_to_the_published_bytes() {
    let service = IpvsServiceKey::tcp("[2002::1]:53".parse().expect("an address"));
    let destination = destination_of_the_images().destination;
    let bytes = image(&IpvsRequest::AddDestination { service, destination });
    // The image has no service, and after the destination's six attributes three counters, which no
    // request needs.
    let service_len = 4 + 3 * 8 + 20;
    let nest = &bytes[20 + service_len..];
    assert_eq!(nest[2..], ADD_DESTINATION[22..84]);
    assert_eq!(usize::from(nest[0]), nest.len());
    assert_eq!(ADD_DESTINATION[20..22], [nest[0] + 24, 0]);
}

/// The images leave the family of the destination out.
#[test]
fn a_destination_is_decoded_from_the_published_bytes() {
    let decode = |image: &[u8]| {
        let message = message(image);
        match IpvsReply::decode(5, &message.attributes, IpvsFamily::V6) {
            Ok(Some(IpvsReply::Destination(status))) => status,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(decode(&ADD_DESTINATION), destination_of_the_images());
    let expected =
        IpvsDestinationStatus { stats: stats_of_the_images(), ..destination_of_the_images() };
    assert_eq!(decode(&DESTINATION), expected);
}

/// Encodes an addition, and decodes it as the kernel's answer, which has the same attributes.
fn round_trip(request: &IpvsRequest, family: IpvsFamily) -> IpvsReply {
    let message = request.encode(25).expect("the values fit");
    let reply = IpvsReply::decode(message.command, &message.attributes, family);
    reply.expect("well formed").expect("a known command")
}

#[test]
fn every_kind_of_service_survives_the_round_trip() {
    let v4 = "10.0.0.1:80".parse().expect("an address");
    let v6 = "[2001:db8::1]:53".parse().expect("an address");
    let mark = 7.try_into().expect("not 0");
    let marked = |family| IpvsServiceKey::Mark { family, mark };
    let keys = [
        IpvsServiceKey::tcp(v4),
        IpvsServiceKey::udp(v6),
        marked(IpvsFamily::V4),
        marked(IpvsFamily::V6),
    ];
    for key in keys {
        let mut service = IpvsService::new(key, "mh");
        service.scheduler_flags = IpvsSchedulerFlags { flag1: true, flag2: false, flag3: true };
        service.persistence = Some(IpvsPersistence {
            timeout_secs: 360,
            netmask: match key.family() {
                IpvsFamily::V4 => IpvsNetmask::V4([255, 255, 0, 0].into()),
                IpvsFamily::V6 => IpvsNetmask::V6(64),
            },
        });
        service.persistence_engine = Some("sip".to_owned());
        let IpvsReply::Service(status) =
            round_trip(&IpvsRequest::AddService(service.clone()), IpvsFamily::V4)
        else {
            panic!("not a service")
        };
        assert_eq!(status.service, service);
    }
}

#[test]
fn every_kind_of_destination_survives_the_round_trip() {
    let checksum = IpvsTunnelChecksum::RemoteOffload;
    let methods = [
        IpvsForwarding::Nat,
        IpvsForwarding::Local,
        IpvsForwarding::DirectRouting,
        IpvsForwarding::Tunnel(IpvsTunnel::Ipip),
        IpvsForwarding::Tunnel(IpvsTunnel::Gue { port: 6080, checksum }),
        IpvsForwarding::Tunnel(IpvsTunnel::Gre { checksum: IpvsTunnelChecksum::Present }),
        IpvsForwarding::Tunnel(IpvsTunnel::Other { kind: 9, port: 1, flags: 0x8000 }),
        IpvsForwarding::Other(4),
    ];
    let service = IpvsServiceKey::tcp("10.0.0.1:80".parse().expect("an address"));
    for address in ["10.0.1.1:8080", "[2001:db8::2]:80"] {
        for forwarding in methods {
            let address = address.parse().expect("an address");
            let mut destination = IpvsDestination::new(address, forwarding);
            (destination.weight, destination.upper_threshold) = (i32::MAX as u32, 9);
            let expected = destination.clone();
            let request = IpvsRequest::AddDestination { service, destination };
            let IpvsReply::Destination(status) = round_trip(&request, IpvsFamily::V4) else {
                panic!("not a destination")
            };
            assert_eq!(status.destination, expected);
        }
    }
}

#[test]
fn daemons_timeouts_and_the_version_are_decoded() {
    let mut daemon = IpvsDaemon::new(IpvsDaemonState::Backup, "eth0", 7);
    daemon.group = Some("ff02::81".parse().expect("an address"));
    (daemon.port, daemon.ttl, daemon.max_message_len) = (8848, 2, 1400);
    let reply = round_trip(&IpvsRequest::StartDaemon(daemon.clone()), IpvsFamily::V4);
    assert_eq!(reply, IpvsReply::Daemon(daemon));
    let timeouts = IpvsTimeouts::new(900, 120, 300);
    let reply = round_trip(&IpvsRequest::SetTimeouts(timeouts), IpvsFamily::V4);
    assert_eq!(reply, IpvsReply::Timeouts(timeouts));
    let info = [8, 0, 1, 0, 1, 2, 1, 0, 8, 0, 2, 0, 0, 16, 0, 0];
    let expected = IpvsInfo { version: (1, 2, 1), connection_table_size: 4096 };
    let reply = IpvsReply::decode(14, &info, IpvsFamily::V4);
    assert_eq!(reply, Ok(Some(IpvsReply::Info(expected))));
    assert_eq!(IpvsReply::decode(99, &info, IpvsFamily::V4), Ok(None));
}

#[test]
fn values_that_do_not_fit_are_refused_by_name() {
    let v4 = IpvsServiceKey::tcp("10.0.0.1:80".parse().expect("an address"));
    let scoped = SocketAddr::V6(std::net::SocketAddrV6::new([0xfe80; 8].into(), 80, 0, 2));
    let refused = |request: IpvsRequest| request.encode(25).unwrap_err().setting;
    let mut wrong_mask = IpvsService::new(v4, "rr");
    wrong_mask.persistence = Some(IpvsPersistence::new(IpvsFamily::V6, 60));
    let mut engine = IpvsService::new(v4, "rr");
    engine.persistence_engine = Some(String::new());
    let destination = IpvsDestination::new(scoped, IpvsForwarding::Nat);
    let daemon = IpvsDaemon::new(IpvsDaemonState::Master, "a\0b", 0);
    let found = [
        refused(IpvsRequest::AddService(IpvsService::new(v4, "sixteen-letters-"))),
        refused(IpvsRequest::AddService(wrong_mask)),
        refused(IpvsRequest::EditService(engine)),
        refused(IpvsRequest::RemoveService(IpvsServiceKey::udp(scoped))),
        refused(IpvsRequest::AddDestination { service: v4, destination }),
        refused(IpvsRequest::StartDaemon(daemon)),
    ];
    let expected = [
        "scheduler",
        "persistence.netmask",
        "persistence_engine",
        "key.address",
        "address",
        "interface",
    ];
    assert_eq!(found, expected);
}
