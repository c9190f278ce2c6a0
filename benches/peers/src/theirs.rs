//! The subjects of other crates that select a backend.

use std::hint::black_box;

use hashring::HashRing;
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::{
    BackendIter, BackendSelection, Consistent, FNVHash, Random, RoundRobin,
};

use crate::subject::{Subject, addresses, keys};

/// Returns every subject with `n` backends.
pub(crate) fn subjects(n: usize) -> Vec<Subject> {
    vec![
        pingora::<RoundRobin>("RoundRobin", n),
        pingora::<Random>("Random", n),
        pingora::<FNVHash>("FNVHash", n),
        pingora::<Consistent>("Consistent", n),
        ring("1 vnode", n, 1),
        ring("160 vnodes", n, 160),
    ]
}

fn pingora<S>(name: &str, n: usize) -> Subject
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let balancer = LoadBalancer::<S>::try_from_iter(addresses(n)).expect("sound addresses");
    let mut keys = keys();
    Subject::new(format!("pingora {name}"), n, move |steps| {
        for _ in 0..steps {
            let key = keys().to_le_bytes();
            drop(black_box(balancer.select(&key, 256).expect("a healthy backend")));
        }
    })
}

fn ring(name: &str, n: usize, points: u32) -> Subject {
    let mut ring = HashRing::new();
    let nodes = addresses(n).flat_map(|node| (0..points).map(move |point| (node, point)));
    ring.batch_add(nodes.collect());
    let mut keys = keys();
    Subject::new(format!("hashring {name}"), n, move |steps| {
        for _ in 0..steps {
            black_box(ring.get(&keys()).expect("the ring has nodes"));
        }
    })
}
