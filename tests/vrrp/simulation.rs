//! Elections among several routers on a network that loses, delays, reorders and splits, with clocks
//! that drift and processes that stall. Every run repeats itself by its seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use lvs::scheduler::Rng;

use crate::world::*;

/// The longest that a message is under way.
const DELAY: Duration = Duration::from_millis(20);
/// How much a clock may be wrong.
const DRIFT: f64 = 0.01;
/// What a timer may be late.
const GRAIN: Duration = Duration::from_millis(1);
const RUNS: u64 = 1500;

struct Node {
    router: Election,
    priority: u8,
    /// How many seconds its clock counts in one.
    pace: f64,
    /// Has it the addresses?
    has: bool,
    alive: bool,
    stalled_until: Duration,
    /// Messages that arrived while it was stalled.
    unread: Vec<ReceivedAdvert>,
    side: u8,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    Wake(usize),
    Arrive { to: usize, from: usize, priority: u8 },
}

struct World {
    nodes: Vec<Node>,
    rng: Rng,
    base: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    count: u64,
    loss: u64,
    /// How often the addresses were taken.
    taken: u32,
    /// Since when two have them, and the longest that this ever was.
    two: Option<Duration>,
    longest: Duration,
}

impl World {
    fn new(seed: u64, preempt: PreemptMode) -> Self {
        let mut rng = Rng::with_seed(seed);
        let base = start();
        let nodes = (0..2 + rng.below(4)).map(|i| {
            // No two the same: who is to be master is known.
            let priority = 40 * (i as u8 + 1) - rng.below(30) as u8;
            let config = config(i as u8 + 1, priority).preempt(preempt);
            let router = Election::new(config).expect("sound");
            let pace = 1.0 + DRIFT * (rng.below(2001) as f64 / 1000.0 - 1.0);
            let (alive, stalled_until, unread) = (true, Duration::ZERO, Vec::new());
            Node { router, priority, pace, has: false, alive, stalled_until, unread, side: 0 }
        });
        let nodes = nodes.collect();
        let (events, now) = (BinaryHeap::new(), Duration::ZERO);
        let mut world = Self {
            nodes,
            rng,
            base,
            now,
            events,
            count: 0,
            loss: 0,
            taken: 0,
            two: None,
            longest: Duration::ZERO,
        };
        for i in 0..world.nodes.len() {
            let now = world.local(i);
            world.nodes[i].router.start(now);
            world.after(i);
        }
        world
    }

    /// What a node's clock says.
    fn local(&self, node: usize) -> Instant {
        self.base + self.now.mul_f64(self.nodes[node].pace)
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    /// Does what a node wants, and has it woken in time.
    fn after(&mut self, i: usize) {
        while let Some(output) = self.nodes[i].router.poll_output() {
            match output {
                ElectionOutput::SendAdvert { priority } => self.send(i, priority),
                ElectionOutput::AcquireAddresses => {
                    assert!(!self.nodes[i].has, "what it has it need not take");
                    self.nodes[i].has = true;
                    self.taken += 1;
                }
                ElectionOutput::ReleaseAddresses => self.nodes[i].has = false,
                _ => {}
            }
        }
        let node = &self.nodes[i];
        assert_eq!(node.has, node.router.state() == VrrpState::Master);
        if let Some(due) = node.router.poll_timeout() {
            // A timer has a grain, and is never early.
            let at = (due - self.base).div_f64(node.pace) + Duration::from_micros(10);
            self.push(at.max(self.now), Event::Wake(i));
        }
    }

    /// Keeps the book on how long two have had the addresses.
    fn watch(&mut self) {
        if self.masters().len() > 1 {
            self.two.get_or_insert(self.now);
        } else if let Some(since) = self.two.take() {
            self.longest = self.longest.max(self.now - since);
        }
    }

    fn send(&mut self, from: usize, priority: u8) {
        for to in 0..self.nodes.len() {
            let lost = self.rng.below(1000) < self.loss;
            let split = self.nodes[to].side != self.nodes[from].side;
            if to != from && !lost && !split {
                let delay = DELAY.mul_f64(self.rng.below(1001) as f64 / 1000.0);
                self.push(self.now + delay, Event::Arrive { to, from, priority });
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(&Reverse((at, _, event))) = self.events.peek() {
            if at > until {
                break;
            }
            self.events.pop();
            self.now = at;
            let (Event::Wake(i) | Event::Arrive { to: i, .. }) = event;
            let heard = match event {
                Event::Wake(_) => None,
                Event::Arrive { from, priority, .. } => Some(heard(from as u8 + 1, priority)),
            };
            if !self.nodes[i].alive {
                continue;
            }
            if self.nodes[i].stalled_until > at {
                self.nodes[i].unread.extend(heard);
                self.push(self.nodes[i].stalled_until, Event::Wake(i));
                continue;
            }
            self.turn(i, heard);
            self.watch();
        }
        self.now = until;
    }

    /// A node reads what has come and looks at its timers, in one order or the other.
    fn turn(&mut self, i: usize, heard: Option<ReceivedAdvert>) {
        let now = self.local(i);
        let timers_first = self.rng.below(2) == 0;
        if timers_first {
            self.nodes[i].router.handle_timeout(now);
        }
        let unread = std::mem::take(&mut self.nodes[i].unread);
        for heard in unread.into_iter().chain(heard) {
            self.nodes[i].router.handle_advert(now, &heard);
        }
        if !timers_first {
            self.nodes[i].router.handle_timeout(now);
        }
        self.after(i);
    }

    fn stall(&mut self, i: usize, time: Duration) {
        self.nodes[i].stalled_until = self.now + time;
    }

    fn crash(&mut self, i: usize) {
        // With it go its addresses: see to that is the shell's part.
        (self.nodes[i].alive, self.nodes[i].has) = (false, false);
    }

    fn masters(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&i| self.nodes[i].has).collect()
    }

    /// The one that goes before all others.
    fn best(&self) -> usize {
        let alive = (0..self.nodes.len()).filter(|&i| self.nodes[i].alive);
        alive.max_by_key(|&i| self.nodes[i].priority).expect("one is alive")
    }

    /// How long an election may take: the patience of the lowest, an interval, and twice a delay.
    fn settles(&self) -> Duration {
        (5 * TENTH + 2 * DELAY).mul_f64(1.0 + 3.0 * DRIFT)
    }

    /// Splits, stalls, loss and deaths for some seconds, and then nothing of it.
    fn chaos(&mut self) {
        for _ in 0..self.rng.below(20) {
            let i = self.rng.below(self.nodes.len() as u64) as usize;
            match self.rng.below(6) {
                0 => self.loss = self.rng.below(600),
                1 => self.nodes.iter_mut().zip(0..).for_each(|(node, k)| node.side = k % 2),
                2 => self.nodes.iter_mut().for_each(|node| node.side = 0),
                3 | 4 => {
                    let time = Duration::from_millis(self.rng.below(2000));
                    self.stall(i, time);
                }
                _ if self.nodes.iter().filter(|node| node.alive).count() > 1 => self.crash(i),
                _ => {}
            }
            let time = Duration::from_millis(self.rng.below(1500));
            self.run(time);
        }
        self.loss = 0;
        for i in 0..self.nodes.len() {
            self.nodes[i].side = 0;
            self.nodes[i].stalled_until = Duration::ZERO;
            self.push(self.now, Event::Wake(i));
        }
    }
}

#[test]
fn after_any_trouble_there_is_one_master_and_it_stays() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.chaos();
        world.run(2 * world.settles());
        let best = world.best();
        assert_eq!(world.masters(), [best], "seed {seed}");
        let taken = world.taken;
        for _ in 0..20 {
            world.run(Duration::from_millis(173));
            assert_eq!(world.masters(), [best], "seed {seed}");
        }
        assert_eq!(world.taken, taken, "seed {seed}: nobody came and went");
    }
}

#[test]
fn without_preemption_nobody_takes_what_another_has() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Never);
        world.chaos();
        world.run(3 * world.settles());
        let masters = world.masters();
        assert_eq!(masters.len(), 1, "seed {seed}");
        let taken = world.taken;
        world.run(Duration::from_secs(5));
        assert_eq!((world.masters(), world.taken), (masters.clone(), taken), "seed {seed}");
        // One more that goes before it, back from its death: it does not matter.
        if let Some(i) = (0..world.nodes.len()).find(|&i| !world.nodes[i].alive) {
            let config = config(i as u8 + 1, 250).preempt(PreemptMode::Never);
            world.nodes[i].router = Election::new(config).expect("sound");
            world.nodes[i].alive = true;
            let now = world.local(i);
            world.nodes[i].router.start(now);
            world.after(i);
            world.run(Duration::from_secs(5));
            assert_eq!((world.masters(), world.taken), (masters, taken), "seed {seed}");
        }
    }
}

#[test]
fn the_best_of_those_left_takes_over_within_its_patience() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.run(Duration::from_secs(2));
        let master = world.best();
        assert_eq!(world.masters(), [master], "seed {seed}");
        world.crash(master);
        let next = world.best();
        let skew = TENTH * (256 - u32::from(world.nodes[next].priority)) / 256;
        let patience = (3 * TENTH + skew).mul_f64(1.0 + DRIFT);
        world.run(patience + DELAY + GRAIN);
        assert!(world.nodes[next].has, "seed {seed}");
        world.run(DELAY);
        assert_eq!(world.masters(), [next], "seed {seed}");
    }
}

#[test]
fn a_farewell_takes_a_skew_and_no_more() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.run(Duration::from_secs(2));
        let master = world.best();
        // Not while its last word is under way, which may come after its farewell and unsay it.
        let in_between = |world: &World| {
            let due = world.nodes[master].router.poll_timeout().expect("a beat");
            (2 * DELAY..=4 * DELAY).contains(&(due - world.local(master)))
        };
        while !in_between(&world) {
            world.run(GRAIN);
        }
        let now = world.local(master);
        world.nodes[master].router.stop(now);
        world.after(master);
        let others = (0..world.nodes.len()).filter(|&i| i != master);
        let next = others.max_by_key(|&i| world.nodes[i].priority).expect("one is left");
        let skew = TENTH * (256 - u32::from(world.nodes[next].priority)) / 256;
        let until = world.now + skew.mul_f64(1.0 + DRIFT) + DELAY + GRAIN;
        while world.now < until {
            world.run(GRAIN);
            assert!(!world.masters().is_empty(), "seed {seed}: somebody serves all the time");
        }
        assert!(world.nodes[next].has, "seed {seed}");
        world.run(DELAY);
        assert_eq!(world.masters(), [next], "seed {seed}");
    }
}

/// While nothing is lost and nobody stalls there are two only until the lesser has heard of the other:
/// their patience may end within a message's time of each other.
#[test]
fn on_a_sound_network_two_are_a_matter_of_one_message() {
    let mut ever = Duration::ZERO;
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.run(Duration::from_secs(2));
        world.crash(world.best());
        world.run(Duration::from_secs(2));
        assert!(world.two.is_none() && world.longest <= DELAY, "seed {seed}: {:?}", world.longest);
        ever = ever.max(world.longest);
    }
    assert!(ever > Duration::ZERO, "it does happen");
}

/// A master that stalls has its addresses until it runs again, and not for a moment longer.
#[test]
fn two_are_there_only_while_one_is_stalled() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.run(Duration::from_secs(2));
        let master = world.best();
        let time = Duration::from_millis(300 + world.rng.below(3000));
        world.stall(master, time);
        world.run(time + Duration::from_millis(1));
        // It may have taken them again only after it gave them up, and after it listened.
        let others = world.masters().into_iter().filter(|&i| i != master).count();
        assert!(world.masters().len() <= 1 || others == 0, "seed {seed}: {:?}", world.masters());
        world.run(2 * world.settles());
        assert_eq!(world.masters(), [master], "seed {seed}");
    }
}
