//! Every interleaving of small programs over the production code, explored by loom.
//!
//! ```text
//! RUSTFLAGS="--cfg lvs_loom" cargo test --release --no-default-features --lib --test loom
//! ```
//! `LOOM_MAX_PREEMPTIONS` (default 3 here) bounds how often a thread is interrupted.
#![cfg(lvs_loom)]

#[path = "common/schedulers.rs"]
mod schedulers;

use std::sync::Arc;

use loom::thread;
use lvs::backend::Members;
use lvs::scheduler::{CompileError, PickContext, Picker, Rng, RoundRobin};
use lvs::{
    Backend, BackendId, BackendSet, Balancer, Flow, Lease, Limits, PickError, Scheduler, Spec,
};

use self::schedulers::scheduler;

/// Least-loaded schedulers, which cache their last result: the claim of `backend::load_versions` is that
/// a stale cache is never used. Extend by adding a line.
const CACHING_SCHEDULERS: &[&str] = &["lc", "wlc", "sed", "nq", "bounded(lc)"];

/// The bound on preemptions; the environment's own wins.
fn explore(program: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(program);
}

fn set_of(names: &[&str]) -> BackendSet<()> {
    let set = BackendSet::new();
    insert(&set, names.iter().map(|&name| Spec::new(name, ())));
    set
}

fn insert(set: &BackendSet<()>, specs: impl IntoIterator<Item = Spec<()>>) {
    set.edit(|edit| {
        for spec in specs {
            edit.insert(spec)?;
        }
        Ok(())
    })
    .expect("every scheduler takes a small set");
}

fn balancer(set: &BackendSet<()>, rule: impl Scheduler + 'static) -> Balancer<()> {
    Balancer::new(set, rule).expect("every scheduler takes a small set")
}

fn pick(balancer: &Balancer<()>) -> Result<Lease<()>, PickError> {
    balancer.pick_with_rng(&Flow::new(), &mut Rng::with_seed(1))
}

fn active(set: &BackendSet<()>) -> u32 {
    set.snapshot().backends().iter().map(|backend| backend.load().active).sum()
}

#[test]
fn a_limit_of_one_is_never_two_leases() {
    explore(|| {
        let set = BackendSet::new();
        let balancer = balancer(&set, RoundRobin::new());
        insert(&set, [Spec::new("a", ()).limits(Limits::new(1))]);
        let held = Arc::new(std::sync::atomic::AtomicU32::new(0));

        let other = {
            let (balancer, held) = (balancer.clone(), Arc::clone(&held));
            thread::spawn(move || take_and_return(&balancer, &held))
        };
        take_and_return(&balancer, &held);
        other.join().expect("no panic");

        assert_eq!(active(&set), 0);
        assert!(pick(&balancer).is_ok(), "the connection slot is free again");
    });
}

/// Picks once; `held` counts the leases between their making and their end.
fn take_and_return(balancer: &Balancer<()>, held: &std::sync::atomic::AtomicU32) {
    // A plain atomic, unknown to loom: it judges the order in which things happened, and must not
    // add an order of its own.
    use std::sync::atomic::Ordering::SeqCst;
    match pick(balancer) {
        Ok(lease) => {
            assert_eq!(held.fetch_add(1, SeqCst), 0, "two leases under a limit of one");
            thread::yield_now();
            held.fetch_sub(1, SeqCst);
            drop(lease);
        }
        Err(why) => assert_eq!(why, PickError::AllAtLimit),
    }
}

#[test]
fn leases_and_counters_agree_whatever_the_writer_does() {
    explore(|| {
        let set = set_of(&["b", "a"]);
        let balancer = balancer(&set, RoundRobin::new());
        let removed = set.snapshot().find(&"a".into()).cloned().expect("just inserted");

        let writer = {
            let set = set.clone();
            thread::spawn(move || {
                set.set_weight(&"b".into(), 3).expect("b stays");
                set.remove(&"a".into()).expect("only this thread removes a");
            })
        };
        let first = pick(&balancer).expect("b is always there");
        let second = pick(&balancer).expect("b is always there");
        writer.join().expect("no panic");

        let on = |id: &BackendId| [&first, &second].iter().filter(|l| l.id() == id).count();
        let left = set.snapshot().find(&"b".into()).cloned().expect("b stays");
        for backend in [&removed, &left] {
            assert_eq!(backend.load().active as usize, on(backend.id()));
        }
        assert_eq!(pick(&balancer).expect("b is there").id().as_str(), "b");
        drop((first, second));
        assert_eq!((removed.load().active, left.load().active), (0, 0));
        assert_eq!(removed.outcomes().total() + left.outcomes().total(), 3);
    });
}

#[test]
fn a_lease_outlives_its_backend_and_still_counts_down() {
    explore(|| {
        let set = set_of(&["a"]);
        let balancer = balancer(&set, RoundRobin::new());
        let lease = pick(&balancer).expect("a is there");
        let backend: Arc<Backend<()>> = Arc::clone(lease.backend());

        let writer = {
            let set = set.clone();
            thread::spawn(move || {
                set.remove(&"a".into()).expect("only this thread removes a");
                // The same name again is another backend, with an account of its own.
                set.insert(Spec::new("a", ())).expect("the name is free");
            })
        };
        drop(lease);
        writer.join().expect("no panic");

        assert_eq!((backend.load().active, backend.outcomes().total()), (0, 1));
        let successor = Arc::clone(&set.snapshot().backends()[0]);
        assert_eq!((successor.load().active, successor.outcomes().total()), (0, 0));
    });
}

#[test]
fn a_refused_limit_change_or_pick_leaves_no_count_behind() {
    explore(|| {
        let set = set_of(&["a"]);
        let balancer = balancer(&set, RoundRobin::new());

        let writer = {
            let set = set.clone();
            thread::spawn(move || {
                set.set_limits(&"a".into(), Limits::new(1)).expect("sound");
                set.set_limits(&"a".into(), Limits::NONE).expect("sound");
            })
        };
        // Made under one rule and ended under another: the flag must not stay up.
        let first = pick(&balancer);
        let second = pick(&balancer);
        let made = u32::from(first.is_ok()) + u32::from(second.is_ok());
        assert!(made >= 1, "the first place is always free");
        assert_eq!(active(&set), made);
        drop((first, second));
        writer.join().expect("no panic");

        assert_eq!(active(&set), 0);
        assert!(pick(&balancer).is_ok());
    });
}

#[test]
fn the_position_of_rr_advances_and_stays_in_range() {
    explore(|| {
        let set = set_of(&["c", "b", "a"]);
        let balancer = balancer(&set, RoundRobin::new());
        let other = {
            let balancer = balancer.clone();
            thread::spawn(move || pick(&balancer).expect("all are usable"))
        };
        let mine = pick(&balancer).expect("all are usable");
        let theirs = other.join().expect("no panic");

        let mut seen = [mine.id().as_str(), theirs.id().as_str()];
        seen.sort_unstable();
        assert_eq!(seen, ["a", "b"], "each position is given once");
        assert_eq!(pick(&balancer).expect("all are usable").id().as_str(), "c");
    });
}

#[test]
fn the_position_of_rr_survives_a_shrinking_list() {
    explore(|| {
        let set = set_of(&["c", "b", "a"]);
        let balancer = balancer(&set, RoundRobin::new());
        drop((pick(&balancer), pick(&balancer)));
        let writer = {
            let set = set.clone();
            thread::spawn(move || set.remove(&"b".into()).map(drop).expect("b is there"))
        };
        // c by the old list; by the new one, too: what was next stays next.
        assert_eq!(pick(&balancer).expect("c is there").id().as_str(), "c");
        writer.join().expect("no panic");
        // Where the removal compiled before the position advanced, the new list repeats c.
        let next = pick(&balancer).expect("two are left");
        assert!(["a", "c"].contains(&next.id().as_str()), "{next:?}");
        let last = pick(&balancer).expect("two are left");
        assert_ne!(next.id(), last.id(), "round robin advances");
    });
}

#[test]
fn a_worker_never_stays_behind() {
    explore(|| {
        let set = set_of(&["a"]);
        let mut worker = balancer(&set, RoundRobin::new()).worker(Rng::with_seed(1));
        let writer = {
            let set = set.clone();
            thread::spawn(move || {
                let change = set.edit(|edit| {
                    edit.insert(Spec::new("b", ()))?;
                    edit.remove(&"a".into())
                });
                drop(change.expect("sound"));
            })
        };
        // Either list will do, but not the new one's version on the old list.
        let during = worker.pick(&Flow::new()).expect("a or b is eligible");
        assert!(["a", "b"].contains(&during.id().as_str()), "{during:?}");
        writer.join().expect("no panic");

        assert_eq!(worker.pick(&Flow::new()).expect("b is there").id().as_str(), "b");
        assert_eq!(during.backend().load().active, 1);
    });
}

#[test]
fn lanes_and_limits_agree_when_all_threads_have_ended() {
    explore(|| {
        let set = BackendSet::with_counter_lanes(2);
        insert(&set, [Spec::new("a", ())]);
        let balancer = balancer(&set, RoundRobin::new());
        let mut workers = [1, 2].map(|seed| balancer.worker(Rng::with_seed(seed)));
        let first = workers[0].pick(&Flow::new()).expect("no limit");
        let second = workers[1].pick(&Flow::new()).expect("no limit");

        // Counted on lanes, ended under a limit, and on another thread than the worker's.
        let writer = {
            let set = set.clone();
            thread::spawn(move || {
                set.set_limits(&"a".into(), Limits::new(2)).expect("sound");
                drop(second);
            })
        };
        drop(first);
        let third = workers[0].pick(&Flow::new());
        writer.join().expect("no panic");

        assert_eq!(active(&set), u32::from(third.is_ok()));
        let fourth = pick(&balancer).expect("one of two places is free");
        assert_eq!(active(&set), u32::from(third.is_ok()) + 1);
        drop((third, fourth));
        assert_eq!(active(&set), 0);
    });
}

#[test]
fn a_stale_cache_is_never_used() {
    an_undisturbed_pick_finds_the_idle_backend(|| Arc::new(Scan));
    for &name in CACHING_SCHEDULERS {
        an_undisturbed_pick_finds_the_idle_backend(move || scheduler(name));
    }
}

/// A lease ends while the set is republished and full, and picks cache "no backend": the first pick
/// afterwards must find the idle backend.
///
/// Full, because a pick that succeeds changes a load itself and so hides what it cached.
fn an_undisturbed_pick_finds_the_idle_backend(
    rule: impl Fn() -> Arc<dyn Scheduler> + Send + Sync + 'static,
) {
    explore(move || {
        let set = BackendSet::new();
        insert(&set, ["b", "a"].map(|name| Spec::new(name, ()).limits(Limits::new(1))));
        let first = balancer(&set, RoundRobin::new());
        let on_a = pick(&first).expect("a is first");
        let on_b = pick(&first).expect("b is second");

        let owner = thread::spawn(move || drop(on_a));
        // Compiled in the midst of it, too: tracking starts while a lease ends.
        let least = balancer(&set, rule());
        drop(pick(&least));
        set.insert(Spec::new("c", ()).weight(0)).expect("the name is free");
        drop(pick(&least));
        owner.join().expect("no panic");

        let chosen = pick(&least).expect("a is idle");
        assert_eq!(chosen.id().as_str(), "a", "b is full, c is quiesced");
        drop((chosen, on_b));
        assert_eq!(active(&set), 0);
    });
}

/// Looks at everybody each time: what a memory must agree with.
#[derive(Clone, Copy, Debug)]
struct Scan;

impl Scheduler for Scan {
    fn name(&self) -> &str {
        "scan"
    }

    fn compile(
        &self,
        _members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(Self))
    }
}

impl Picker for Scan {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let usable = (0..cx.members().len()).filter(|&i| cx.is_usable(i));
        usable.min_by_key(|&i| cx.members()[i].load().active)
    }
}
