//! Parsing a message of the kernel's synchronization daemon does not panic on any bytes, and encoding the
//! parsed connections gives a message with equal ones. Parsing a line of the kernel's list of connections does
//! not panic on any text.
//!
//! ```text
//! cargo +nightly fuzz run ipvs_sync
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::ipvs::{IpvsConnection, IpvsSyncMessage};

fuzz_target!(|bytes: &[u8]| {
    let _ = IpvsConnection::parse(&String::from_utf8_lossy(bytes));
    let mut bytes = bytes.to_vec();
    // A fuzzer rarely finds the length.
    if let (Ok(len), true) = (u16::try_from(bytes.len()), bytes.len() >= 8) {
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }
    let Ok(message) = IpvsSyncMessage::parse(&bytes) else { return };
    let connections: Vec<_> = message.connections().collect();
    assert_eq!(connections.len(), usize::from(bytes[4]));
    // Options that are not known are left out, so that the message is not longer.
    let encoded = IpvsSyncMessage::encode(message.sync_id(), &connections, u16::MAX);
    let encoded = encoded.expect("what was parsed can be encoded");
    let again = encoded.first().map(|it| IpvsSyncMessage::parse(it).expect("it is valid"));
    let again: Vec<_> = again.iter().flat_map(|it| it.connections()).collect();
    assert_eq!(again, connections);
});
