//! The local ports of checks by firewall mark.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the kernel's IPVS remembers a TCP connection that nobody has answered, or that this machine has
/// ended: by default two minutes at most.
const MEMORY: Duration = Duration::from_secs(120);

/// The local ports from which checks by firewall mark have connected lately.
///
/// The kernel looks for a connection by its addresses and ports before it looks for a service by mark: from
/// the port of an earlier check of another backend, a check would reach that backend.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckPorts(Arc<Mutex<UsedPorts>>);

#[derive(Debug, Default)]
struct UsedPorts {
    /// The mark and the time of the last use, by the local and the remote address.
    uses: HashMap<(SocketAddr, SocketAddr), (u32, Instant)>,
    swept_at: Option<Instant>,
}

impl CheckPorts {
    /// Uses a local address for a connection by a mark. Returns whether it may: no check by another mark has
    /// used it lately.
    pub(super) fn claim(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        mark: u32,
        now: Instant,
    ) -> bool {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |used: &Instant| now.saturating_duration_since(*used) < MEMORY;
        if !ports.swept_at.as_ref().is_some_and(is_recent) {
            ports.swept_at = Some(now);
            ports.uses.retain(|_, (_, used)| is_recent(used));
        }
        match ports.uses.get(&(local, remote)) {
            Some((other, used)) if *other != mark && is_recent(used) => false,
            _ => {
                ports.uses.insert((local, remote), (mark, now));
                true
            }
        }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_port_is_of_one_mark_for_as_long_as_the_kernel_remembers() {
        let ports = CheckPorts::default();
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (local, remote) = (address("10.0.0.1:40000"), address("10.0.0.9:80"));
        let begun = Instant::now();
        assert!(ports.claim(local, remote, 1, begun));
        assert!(ports.claim(local, remote, 1, begun), "the same backend");
        assert!(!ports.claim(local, remote, 2, begun + MEMORY / 2));
        assert!(ports.claim(local, address("10.0.0.9:81"), 2, begun), "another virtual address");
        assert!(ports.claim(address("10.0.0.1:40001"), remote, 2, begun));
        assert!(ports.claim(local, remote, 2, begun + MEMORY));
        assert!(!ports.claim(local, remote, 1, begun + MEMORY));
        // Nothing is kept for longer than it counts.
        assert!(ports.claim(local, remote, 3, begun + 3 * MEMORY));
        assert_eq!(ports.0.lock().expect("not poisoned").uses.len(), 1);
    }
}
