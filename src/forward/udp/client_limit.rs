//! How many flows each client has, over all workers.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::sync::{Mutex, lock};

/// Counts flows by the client's address, up to a bound.
///
/// One lock for all workers: it is taken where a flow begins or ends, which costs two system calls
/// at least, and not at all without a bound.
#[derive(Debug)]
pub(super) struct ClientFlowLimit {
    max_per_client: Option<usize>,
    flows: Mutex<HashMap<IpAddr, usize>>,
}

impl ClientFlowLimit {
    pub(super) fn new(bound: Option<usize>) -> Self {
        Self { max_per_client: bound, flows: Mutex::new(HashMap::new()) }
    }

    /// Counts one more, if the client may have it.
    pub(super) fn try_acquire(&self, client: IpAddr) -> bool {
        let Some(bound) = self.max_per_client else { return true };
        let mut flows = lock(&self.flows);
        let count = flows.entry(client).or_default();
        let enters = *count < bound;
        *count += usize::from(enters);
        // A client that is turned away leaves no trace: there may be any number of them.
        if *count == 0 {
            flows.remove(&client);
        }
        enters
    }

    /// Counts one less.
    pub(super) fn release(&self, client: IpAddr) {
        if self.max_per_client.is_none() {
            return;
        }
        let mut flows = lock(&self.flows);
        if let Some(count) = flows.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                flows.remove(&client);
            }
        }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_for_each_client_and_nothing_is_kept_of_those_who_left() {
        let clients = ClientFlowLimit::new(Some(2));
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(clients.try_acquire(a) && clients.try_acquire(a) && !clients.try_acquire(a));
        assert!(clients.try_acquire(b));
        clients.release(a);
        assert!(clients.try_acquire(a));
        for client in [a, a, b] {
            clients.release(client);
        }
        assert!(lock(&clients.flows).is_empty());
        let none = ClientFlowLimit::new(Some(0));
        assert!(!none.try_acquire(a) && lock(&none.flows).is_empty());
    }
}
