//! Loopback addresses for one test each.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns a loopback address that no other test uses, with port 0: another test's address with a
/// port that is used again would receive that test's requests.
pub(crate) fn own_address() -> SocketAddr {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    let count = (COUNT.fetch_add(1, Ordering::SeqCst) % 250 + 1) as u8;
    ([127, a % 200 + 10, b, count], 0).into()
}
