//! Sets and balancers for the unit tests of schedulers.

use crate::scheduler::{Flow, Rng, Scheduler};
use crate::{BackendId, BackendSet, Balancer, Lease, Spec};

/// Returns a balancer of members of these weights at these positions; a member's name is its
/// position.
pub(in crate::scheduler) fn balancer(
    rule: impl Scheduler + 'static,
    weights: &[u32],
) -> Balancer<()> {
    let set = BackendSet::new();
    set.edit(|edit| {
        for (position, &weight) in weights.iter().enumerate().rev() {
            edit.insert(Spec::new(id(position), ()).weight(weight))?;
        }
        Ok(())
    })
    .expect("sound specs");
    Balancer::new(&set, rule).expect("a rule that takes any set")
}

pub(in crate::scheduler) fn id(position: usize) -> BackendId {
    BackendId::from(position.to_string().as_str())
}

/// Returns the position of a lease's member.
pub(in crate::scheduler) fn position(lease: &Lease<()>) -> usize {
    lease.id().as_str().parse().expect("a position")
}

/// Returns the positions of the next picks; each lease ends before the next pick.
pub(in crate::scheduler) fn sequence(balancer: &Balancer<()>, picks: usize) -> Vec<usize> {
    let mut rng = Rng::with_seed(0x5eed);
    (0..picks)
        .map(|_| position(&balancer.pick_with_rng(&Flow::new(), &mut rng).expect("a pick")))
        .collect()
}

/// Returns the share of the next picks that each member gets, in percent.
pub(in crate::scheduler) fn percentages(balancer: &Balancer<()>, picks: usize) -> Vec<f64> {
    let mut counts = vec![0; balancer.snapshot().members().len()];
    sequence(balancer, picks).into_iter().for_each(|position| counts[position] += 1);
    counts.into_iter().map(|count: u32| f64::from(count) * 100.0 / picks as f64).collect()
}

/// Asserts that percentages differ by at most `tolerance`.
#[track_caller]
pub(in crate::scheduler) fn assert_near(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    let near = got.iter().zip(want).all(|(got, want)| (got - want).abs() <= tolerance);
    assert!(near, "{got:?} is not {want:?} +/- {tolerance}");
}

/// Returns the name of the `i`-th backend of a test.
pub(in crate::scheduler) fn backend_name(i: usize) -> String {
    format!("10.1.{}.{}:80", i / 250, i % 250)
}

/// Returns a set of backends of these weights, named by [`backend_name`] in their order; the list
/// of members is newest first.
pub(in crate::scheduler) fn set_with_weights(weights: &[u32]) -> BackendSet<()> {
    let set = BackendSet::new();
    set.edit(|edit| {
        weights.iter().enumerate().try_for_each(|(i, &weight)| {
            edit.insert(Spec::new(backend_name(i), ()).weight(weight)).map(drop)
        })
    })
    .expect("names differ");
    set
}
