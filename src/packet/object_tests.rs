//! The object in the repository has the layout that the Rust structs have.

use super::layout::STRUCTS;
use super::statistics::PacketStatistics;

const OBJECT: &[u8] = include_bytes!("bpf/lvs.bpf.o");
const LAYOUT: &str = include_str!("bpf/layout.h");

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    let octets = bytes[at..at + len].iter().rev();
    octets.fold(0, |sum, octet| sum << 8 | usize::from(*octet))
}

fn text(bytes: &[u8], at: usize) -> &str {
    let end = bytes[at..].iter().position(|octet| *octet == 0).expect("a string ends");
    std::str::from_utf8(&bytes[at..at + end]).expect("a name")
}

/// Returns a section of an ELF file for BPF: 64 bits, little endian.
fn section<'a>(elf: &'a [u8], name: &str) -> &'a [u8] {
    let (headers, len) = (number(elf, 0x28, 8), number(elf, 0x3a, 2));
    let (count, names) = (number(elf, 0x3c, 2), number(elf, 0x3e, 2));
    let part = |n: usize| {
        let header = headers + n * len;
        let offset = number(elf, header + 0x18, 8);
        &elf[offset..offset + number(elf, header + 0x20, 8)]
    };
    let name_of = |n: usize| text(part(names), number(elf, headers + n * len, 4));
    let found = (1..count).find(|n| name_of(*n) == name);
    part(found.unwrap_or_else(|| panic!("no section {name}")))
}

/// A struct of the type information, with the offsets of its fields.
type BtfStruct<'a> = (&'a str, usize, Vec<(&'a str, usize)>);

/// Reads the structs of the type information (the kernel's documentation, `bpf/btf`).
fn structs(btf: &[u8]) -> Vec<BtfStruct<'_>> {
    let header = number(btf, 4, 4);
    let types = &btf[header + number(btf, 8, 4)..][..number(btf, 12, 4)];
    let strings = &btf[header + number(btf, 16, 4)..][..number(btf, 20, 4)];
    let (mut structs, mut at) = (Vec::new(), 0);
    while at < types.len() {
        let (name, info, size) =
            (number(types, at, 4), number(types, at + 4, 4), number(types, at + 8, 4));
        let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
        at += 12;
        let member_len = match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => 12 * count,
            6 | 13 => 8 * count,
            _ => 0,
        };
        if kind == 4 {
            let members = (0..count).map(|n| {
                let member = at + n * 12;
                let bits = number(types, member + 8, 4) & 0x00ff_ffff;
                (text(strings, number(types, member, 4)), bits / 8)
            });
            structs.push((text(strings, name), size, members.collect()));
        }
        at += member_len;
    }
    structs
}

#[test]
fn structs_are_those_of_the_object() {
    let structs = structs(section(OBJECT, ".BTF"));
    for (name, size, fields) in STRUCTS {
        let name: String = name.strip_prefix("Raw").expect("a name for both").chars().fold(
            String::new(),
            |mut name, letter| {
                if letter.is_ascii_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(letter.to_ascii_lowercase());
                name
            },
        );
        let found = structs.iter().find(|found| found.0 == name);
        let (_, found_size, found_fields) =
            found.unwrap_or_else(|| panic!("the object has no struct {name}"));
        assert_eq!((found_size, found_fields.as_slice()), (size, *fields), "{name}");
    }
}

#[test]
fn statistics_are_in_the_order_of_the_program() {
    let (_, counters) = LAYOUT.split_once("enum counter {").expect("the counters");
    let (counters, _) = counters.split_once("COUNTERS,").expect("their number");
    let names = counters.split(',').filter_map(|name| name.trim().strip_prefix("COUNT_"));
    let names: Vec<_> = names.map(str::to_lowercase).collect();
    assert_eq!(names, PacketStatistics::NAMES);
}

#[test]
fn constants_are_those_of_the_program() {
    use super::layout::{
        MAX_SERVERS, MAX_SERVICES, SERVICE_HASHES_PORT, SERVICE_IS_KEYED, SERVICE_SHEDS,
        SERVICE_UNOWNED, XDP_DEVICE_REDIRECTS, XDP_DEVICE_SENDS, XDP_DEVICE_SENDS_MULTI_BUFFER,
        XDP_DEVICE_SLOTS, event_kind, flow_state, server_method,
    };
    for (name, value) in [
        ("MAX_SERVICES", MAX_SERVICES),
        ("XDP_DEVICE_SLOTS", XDP_DEVICE_SLOTS),
        ("XDP_DEVICE_REDIRECTS", XDP_DEVICE_REDIRECTS.into()),
        ("XDP_DEVICE_SENDS", XDP_DEVICE_SENDS.into()),
        ("XDP_DEVICE_SENDS_MULTI_BUFFER", XDP_DEVICE_SENDS_MULTI_BUFFER.into()),
        ("MAX_SERVERS", MAX_SERVERS),
        ("SERVICE_SHEDS", SERVICE_SHEDS),
        ("SERVICE_UNOWNED", SERVICE_UNOWNED),
        ("SERVICE_IS_KEYED", SERVICE_IS_KEYED),
        ("SERVICE_HASHES_PORT", SERVICE_HASHES_PORT),
        ("METHOD_NAT", server_method::NAT.into()),
        ("METHOD_DIRECT", server_method::DIRECT.into()),
        ("METHOD_IPIP", server_method::IPIP.into()),
        ("METHOD_GUE", server_method::GUE.into()),
        ("EVENT_DECIDED", event_kind::DECIDED),
        ("EVENT_ANSWERED", event_kind::ANSWERED),
        ("EVENT_ENDED", event_kind::ENDED),
        ("EVENT_FORGOTTEN", event_kind::FORGOTTEN),
        ("FLOW_TO_CLIENT", flow_state::TO_CLIENT),
        ("FLOW_ANSWERED", flow_state::ANSWERED),
        ("FLOW_CLIENT_FIN", flow_state::CLIENT_FIN),
        ("FLOW_SERVER_FIN", flow_state::SERVER_FIN),
        ("FLOW_CLIENT_RESET", flow_state::CLIENT_RESET),
        ("FLOW_SERVER_RESET", flow_state::SERVER_RESET),
        ("FLOW_DIRECT", flow_state::DIRECT),
        ("FLOW_ASSURED", flow_state::ASSURED),
    ] {
        let line = format!("{name} = {value}");
        let is_there = LAYOUT.split([',', '\n', '{', '}']).any(|part| part.trim() == line);
        assert!(is_there, "{line}");
    }
}
