//! The subjects of `lvs`.

use std::hint::black_box;
use std::net::SocketAddr;

use lvs::scheduler::Rng;
use lvs::{BackendSet, Balancer, Flow, Lease, Spec};

use crate::schedulers::{ALL, scheduler};
use crate::subject::{Subject, addresses, keys};

/// Every scheduler with `n` backends of one weight under a standing load of about two leases each.
pub(crate) fn subjects(n: usize) -> Vec<Subject> {
    ALL.iter().map(|name| subject(name, n)).collect()
}

fn subject(name: &str, n: usize) -> Subject {
    let set = BackendSet::new();
    set.edit(|edit| {
        for address in addresses(n) {
            // Above any load here: under `ovf` a weight is a number of connections.
            edit.insert(Spec::from(address).weight(64))?;
        }
        Ok(())
    })
    .expect("a sound set");
    let balancer = Balancer::new(&set, scheduler(name)).expect("every rule takes this set");
    let snapshot = balancer.snapshot();
    let mut rng = Rng::with_seed(n as u64);
    let held: Vec<Lease<SocketAddr>> = (0..2 * n)
        .filter_map(|_| {
            balancer.lease_by_id(snapshot.backends()[rng.below(n as u64) as usize].id())
        })
        .collect();
    let destination = SocketAddr::from(([203, 0, 113, 1], 443));
    let mut keys = keys();
    let mut worker = balancer.worker(Rng::with_seed(1));
    Subject::new(format!("lvs {name}"), n, move |steps| {
        let _standing = &held;
        for _ in 0..steps {
            let key = keys();
            let [a, b, c, d, ..] = key.to_le_bytes();
            let client = SocketAddr::from(([a, b, c, d], 40_000));
            let flow = Flow::from(client).destination(destination).key(key);
            let lease = worker.pick(&flow).expect("a usable backend");
            drop(black_box(lease));
        }
    })
}
