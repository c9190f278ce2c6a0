use super::*;

fn picker(shares: &[u32]) -> WeightedRoundRobinPicker {
    let step = greatest_common_divisor(shares.iter().copied()).max(1);
    let shares = ShareTree::new(shares.iter().copied());
    let top = shares.max().saturating_sub(step - 1);
    let cursor = WalkCursor { next: 0, level: top };
    WeightedRoundRobinPicker {
        cursor: AtomicU64::new(cursor.pack()),
        shares,
        level_step: step,
        top_level: top,
    }
}

fn sequence(shares: &[u32], picks: usize) -> Vec<usize> {
    let picker = picker(shares);
    let mut cursor = WalkCursor::unpack(picker.cursor.load(Ordering::Relaxed));
    let next = |_| {
        let chosen;
        (chosen, cursor) = picker.advance(cursor, |_| true);
        chosen.expect("a member has a share")
    };
    (0..picks).map(next).collect()
}

/// The kernel's rule, member by member and level by level.
fn slow_walk(
    picker: &WeightedRoundRobinPicker,
    start: WalkCursor,
    usable: &[bool],
) -> (Option<usize>, WalkCursor) {
    if picker.top_level == 0 {
        return (None, start);
    }
    let (mut at, mut restarted, mut last_pass) = (start, false, false);
    loop {
        let stop = last_pass && restarted && start.next != 0;
        for i in at.next..picker.shares.len as u32 {
            let share = picker.shares.tree[picker.shares.width + i as usize];
            if usable[i as usize] && share >= at.level {
                return (Some(i as usize), WalkCursor { next: i + 1, level: at.level });
            }
            if stop && i + 1 == start.next {
                return (None, WalkCursor { next: start.next, level: at.level });
            }
        }
        at.next = 0;
        if at.level <= picker.level_step {
            at.level = picker.top_level;
            if last_pass || start.next == 0 {
                return (None, at);
            }
            restarted = true;
        } else {
            at.level -= picker.level_step;
        }
        last_pass = at.level <= picker.level_step;
    }
}

#[test]
fn sequences_equal_the_published_ones() {
    assert_eq!(sequence(&[4, 3, 2], 9), [0, 0, 1, 0, 1, 2, 0, 1, 2]);
    assert_eq!(sequence(&[10, 20, 30], 6), [2, 1, 2, 0, 1, 2]);
    assert_eq!(sequence(&[0, 5, 1], 6), [1, 1, 1, 1, 1, 2]);
}

#[test]
fn skipping_levels_decides_as_the_kernels_walk() {
    let mut rng = crate::scheduler::Rng::with_seed(1);
    for _ in 0..20_000 {
        let len = 1 + rng.below(6) as usize;
        let scale = 1 + rng.below(4) as u32;
        let shares: Vec<u32> = (0..len).map(|_| rng.below(7) as u32 * scale).collect();
        let picker = picker(&shares);
        let usable: Vec<bool> = shares.iter().map(|&share| share > 0 && rng.below(3) > 0).collect();
        let levels = u64::from(picker.top_level.max(1) / picker.level_step + 1);
        let level = (rng.below(levels) as u32 * picker.level_step + 1).min(picker.top_level);
        let start = WalkCursor { next: rng.below(len as u64 + 1) as u32, level };
        assert_eq!(
            picker.advance(start, |i| usable[i]),
            slow_walk(&picker, start, &usable),
            "{shares:?} {usable:?} {start:?}"
        );
    }
}

#[test]
fn one_heavy_member_is_found_without_a_walk_over_every_level() {
    let mut shares = vec![1; 1000];
    shares[500] = 65_535;
    let picker = picker(&shares);
    let start = WalkCursor { next: 0, level: picker.top_level };
    assert_eq!(picker.advance(start, |_| true).0, Some(500));
    assert_eq!(picker.advance(start, |i| i != 500).0, Some(0), "the heavy member is unusable");
    assert_eq!(picker.advance(start, |_| false), (None, start));
}

#[test]
fn the_tree_finds_the_next_member_or_none() {
    let shares = [3, 0, 5, 1, 2];
    let tree = ShareTree::new(shares.into_iter());
    for from in 0..7 {
        for level in 1..7 {
            let slow = (from..5).find(|&i| shares[i] >= level);
            assert_eq!(tree.next_at_least(from, level), slow, "from {from}, level {level}");
        }
    }
    assert_eq!(ShareTree::new([].into_iter()).next_at_least(0, 1), None);
}
