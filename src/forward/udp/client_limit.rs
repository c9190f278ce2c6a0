//! The limit on the number of flows of one client, over all workers.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::sync::{Mutex, lock};

/// Counts the flows of each client address, up to a maximum of at least 1.
///
/// All workers share one lock. It is taken when a flow starts or ends, which costs at least two
/// system calls anyway, and never if there is no maximum.
#[derive(Debug)]
pub(super) struct ClientFlowLimit {
    max_per_client: Option<usize>,
    flows: Mutex<HashMap<IpAddr, usize>>,
}

impl ClientFlowLimit {
    pub(super) fn new(max_per_client: Option<usize>) -> Self {
        Self { max_per_client, flows: Mutex::new(HashMap::new()) }
    }

    /// Counts one more flow of a client; `false` if the client has the maximum already.
    pub(super) fn try_acquire(&self, client: IpAddr) -> bool {
        let Some(max) = self.max_per_client else { return true };
        let mut flows = lock(&self.flows);
        let count = flows.entry(client).or_default();
        let is_allowed = *count < max;
        *count += usize::from(is_allowed);
        is_allowed
    }

    /// Counts one flow of a client less.
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
    fn limit_applies_to_each_client_and_released_clients_are_removed() {
        let limit = ClientFlowLimit::new(Some(2));
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(limit.try_acquire(a) && limit.try_acquire(a) && !limit.try_acquire(a));
        assert!(limit.try_acquire(b));
        limit.release(a);
        assert!(limit.try_acquire(a));
        for client in [a, a, b] {
            limit.release(client);
        }
        assert!(lock(&limit.flows).is_empty());
    }
}
