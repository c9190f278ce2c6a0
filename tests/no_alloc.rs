//! A pick and the end of its lease allocate nothing, whatever the scheduler.
#![cfg(not(lvs_loom))]
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

#[path = "common/schedulers.rs"]
mod schedulers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lvs::scheduler::Rng;
use lvs::{BackendSet, Balancer, Flow, Lease, Outcome, Spec};

use self::schedulers::{ALL, is, scheduler};

/// Counts what this thread asks for, so that tests that run beside it do not disturb.
struct Counting;

thread_local! {
    // Constant and without a destructor: reading it never allocates itself.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to `System` unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about all three is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(act: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    act();
    ALLOCATIONS.get() - before
}

/// Rules that remember each client or destination; their docs say how that is bounded.
const MAY_ALLOCATE: &[&str] = &["lblc", "lblcr"];

#[test]
fn the_counter_sees_an_allocation() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| drop(std::hint::black_box(Vec::<u8>::new()))), 0);
}

#[test]
fn no_scheduler_allocates_in_a_pick_or_at_its_end() {
    for &name in ALL.iter().filter(|name| !MAY_ALLOCATE.iter().any(|rule| is(name, rule))) {
        for members in [1, 3, 100, 1000] {
            assert_eq!(in_picks(name, members), 0, "{name} with {members} members");
        }
    }
}

#[test]
fn a_failed_pick_does_not_allocate() {
    for &name in ALL {
        let set = BackendSet::<()>::new();
        let balancer = Balancer::new(&set, scheduler(name)).expect("an empty set is a set");
        let (flow, mut rng) = (Flow::new(), Rng::with_seed(1));
        let mut fails = || assert!(balancer.pick_with_rng(&flow, &mut rng).is_err());
        // The first pick of a thread registers it with the published pointer.
        fails();
        assert_eq!(allocations(fails), 0, "{name}");
    }
}

/// Counts over picks by all kinds of flows and all ways in which a lease can end.
fn in_picks(name: &str, members: u32) -> u64 {
    let set = BackendSet::new();
    set.edit(|edit| {
        for i in 0..members {
            let address = SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 80));
            // `ovf` reads a weight as a number of connections; none overflows here.
            edit.insert(Spec::from(address).weight(1000 + i % 3))?;
        }
        Ok(())
    })
    .expect("a sound set");
    let balancer = Balancer::new(&set, scheduler(name)).expect("every scheduler takes this set");
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    let now = Instant::now();
    let flows: Vec<Flow> = (0..64u8).map(|i| flow(i, now)).collect();
    let mut rng = Rng::with_seed(u64::from(members));
    let mut held: Vec<Option<Lease<SocketAddr>>> = flows.iter().map(|_| None).collect();
    // The first pick of a thread seeds its generator and registers it with the published pointer.
    balancer.pick(&flows[0]).expect("every backend is eligible").complete(Outcome::Ok);

    allocations(|| {
        for round in 0..8u32 {
            for (i, flow) in (0u32..).zip(&flows) {
                let lease =
                    balancer.pick_with_rng(flow, &mut rng).expect("every backend is eligible");
                let at = now + Duration::from_millis(u64::from(round * 64 + i));
                match i % 6 {
                    0 => drop(lease),
                    1 => lease.complete(Outcome::Ok),
                    2 => lease.complete(Outcome::AppError),
                    3 => lease.complete_with_latency(Outcome::Ok, Duration::from_millis(3), at),
                    4 => lease.complete_with_latency(Outcome::Timeout, Duration::from_secs(1), at),
                    _ => held[i as usize] = Some(lease),
                }
                drop(balancer.pick(flow).expect("every backend is eligible"));
            }
        }
        held.iter_mut().for_each(|slot| drop(slot.take()));
    })
}

fn flow(i: u8, now: Instant) -> Flow {
    let client = SocketAddr::from(([192, 0, 2, i], 40_000 + u16::from(i)));
    match i % 4 {
        0 => Flow::new(),
        1 => Flow::from(client),
        2 => Flow::from(client).destination(SocketAddr::from(([10, 9, 8, i], 443))).time(now),
        _ => Flow::new().key_bytes(&[i]).time(now),
    }
}
