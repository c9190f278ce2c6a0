//! Simulated elections among several routers, on a network with loss, delay, reordering and partitions,
//! with clocks that drift and processes that stall. A run is reproducible by its seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use lvs::scheduler::Rng;

use crate::world::*;

/// The longest transmission time of a message.
const DELAY: Duration = Duration::from_millis(20);
/// The largest relative error of a clock.
const DRIFT: f64 = 0.01;
/// How late a timer may be.
const GRAIN: Duration = Duration::from_millis(1);
const RUNS: u64 = 1500;

struct Node {
    election: Election,
    priority: u8,
    /// How many seconds the node's clock counts in a second.
    pace: f64,
    /// Whether the node holds the addresses.
    has: bool,
    alive: bool,
    stalled_until: Duration,
    /// Messages that arrived while the node was stalled.
    unread: Vec<ReceivedAdvert>,
    /// The side of the partition.
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
    /// How often the addresses were acquired.
    acquired: u32,
    /// Since when two nodes hold the addresses.
    two_since: Option<Duration>,
    /// The longest time that two nodes held the addresses.
    longest: Duration,
}

impl World {
    fn new(seed: u64, preempt: PreemptMode) -> Self {
        let mut rng = Rng::with_seed(seed);
        let base = start();
        let nodes = (0..2 + rng.below(4)).map(|i| {
            // The priorities differ, so that the master is known.
            let priority = 40 * (i as u8 + 1) - rng.below(30) as u8;
            let config = config(i as u8 + 1, priority).preempt(preempt);
            let election = Election::new(config).expect("the configuration is valid");
            let pace = 1.0 + DRIFT * (rng.below(2001) as f64 / 1000.0 - 1.0);
            let (alive, stalled_until, unread) = (true, Duration::ZERO, Vec::new());
            Node { election, priority, pace, has: false, alive, stalled_until, unread, side: 0 }
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
            acquired: 0,
            two_since: None,
            longest: Duration::ZERO,
        };
        for i in 0..world.nodes.len() {
            let now = world.local(i);
            world.nodes[i].election.start(now);
            world.after(i);
        }
        world
    }

    /// Returns the time by a node's clock.
    fn local(&self, node: usize) -> Instant {
        self.base + self.now.mul_f64(self.nodes[node].pace)
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    /// Executes a node's outputs, and schedules its next timeout.
    fn after(&mut self, i: usize) {
        while let Some(output) = self.nodes[i].election.poll_output() {
            match output {
                ElectionOutput::SendAdvert { priority } => self.send(i, priority),
                ElectionOutput::AcquireAddresses => {
                    assert!(
                        !self.nodes[i].has,
                        "a node that holds the addresses does not acquire them"
                    );
                    self.nodes[i].has = true;
                    self.acquired += 1;
                }
                ElectionOutput::ReleaseAddresses => self.nodes[i].has = false,
                _ => {}
            }
        }
        let node = &self.nodes[i];
        assert_eq!(node.has, node.election.state() == VrrpState::Master);
        if let Some(due) = node.election.poll_timeout() {
            // A timer is never early.
            let at = (due - self.base).div_f64(node.pace) + Duration::from_micros(10);
            self.push(at.max(self.now), Event::Wake(i));
        }
    }

    /// Measures how long two nodes hold the addresses.
    fn watch(&mut self) {
        if self.masters().len() > 1 {
            self.two_since.get_or_insert(self.now);
        } else if let Some(since) = self.two_since.take() {
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
            let arrived = match event {
                Event::Wake(_) => None,
                Event::Arrive { from, priority, .. } => Some(advert(from as u8 + 1, priority)),
            };
            if !self.nodes[i].alive {
                continue;
            }
            if self.nodes[i].stalled_until > at {
                self.nodes[i].unread.extend(arrived);
                self.push(self.nodes[i].stalled_until, Event::Wake(i));
                continue;
            }
            self.turn(i, arrived);
            self.watch();
        }
        self.now = until;
    }

    /// Handles a node's messages and timers, in random order.
    fn turn(&mut self, i: usize, arrived: Option<ReceivedAdvert>) {
        let now = self.local(i);
        let timers_first = self.rng.below(2) == 0;
        if timers_first {
            self.nodes[i].election.handle_timeout(now);
        }
        let unread = std::mem::take(&mut self.nodes[i].unread);
        for advert in unread.into_iter().chain(arrived) {
            self.nodes[i].election.handle_advert(now, &advert);
        }
        if !timers_first {
            self.nodes[i].election.handle_timeout(now);
        }
        self.after(i);
    }

    fn stall(&mut self, i: usize, time: Duration) {
        self.nodes[i].stalled_until = self.now + time;
    }

    fn crash(&mut self, i: usize) {
        // The addresses end with the node; in reality their lifetimes end.
        (self.nodes[i].alive, self.nodes[i].has) = (false, false);
    }

    fn masters(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&i| self.nodes[i].has).collect()
    }

    /// Returns the live node of the highest priority.
    fn best(&self) -> usize {
        let alive = (0..self.nodes.len()).filter(|&i| self.nodes[i].alive);
        alive.max_by_key(|&i| self.nodes[i].priority).expect("a node is alive")
    }

    /// Returns the longest time of an election: the longest master-down interval, an interval, and twice
    /// the transmission time.
    fn election_time(&self) -> Duration {
        (5 * TENTH + 2 * DELAY).mul_f64(1.0 + 3.0 * DRIFT)
    }

    /// Causes partitions, stalls, loss and crashes for some seconds, and then ends them.
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
fn after_failures_the_live_node_of_highest_priority_is_the_only_master() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.chaos();
        world.run(2 * world.election_time());
        let best = world.best();
        assert_eq!(world.masters(), [best], "seed {seed}");
        let acquired = world.acquired;
        for _ in 0..20 {
            world.run(Duration::from_millis(173));
            assert_eq!(world.masters(), [best], "seed {seed}");
        }
        assert_eq!(world.acquired, acquired, "seed {seed}: the master does not change");
    }
}

#[test]
fn without_preemption_a_node_of_higher_priority_stays_backup() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Never);
        world.chaos();
        world.run(3 * world.election_time());
        let masters = world.masters();
        assert_eq!(masters.len(), 1, "seed {seed}");
        let acquired = world.acquired;
        world.run(Duration::from_secs(5));
        assert_eq!((world.masters(), world.acquired), (masters.clone(), acquired), "seed {seed}");
        // A crashed node returns with a higher priority, and stays backup.
        if let Some(i) = (0..world.nodes.len()).find(|&i| !world.nodes[i].alive) {
            let config = config(i as u8 + 1, 250).preempt(PreemptMode::Never);
            world.nodes[i].election = Election::new(config).expect("the configuration is valid");
            world.nodes[i].alive = true;
            let now = world.local(i);
            world.nodes[i].election.start(now);
            world.after(i);
            world.run(Duration::from_secs(5));
            assert_eq!((world.masters(), world.acquired), (masters, acquired), "seed {seed}");
        }
    }
}

#[test]
fn after_a_crash_the_next_node_takes_over_within_its_master_down_interval() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.run(Duration::from_secs(2));
        let master = world.best();
        assert_eq!(world.masters(), [master], "seed {seed}");
        world.crash(master);
        let next = world.best();
        let skew = TENTH * (256 - u32::from(world.nodes[next].priority)) / 256;
        let master_down_interval = (3 * TENTH + skew).mul_f64(1.0 + DRIFT);
        world.run(master_down_interval + DELAY + GRAIN);
        assert!(world.nodes[next].has, "seed {seed}");
        world.run(DELAY);
        assert_eq!(world.masters(), [next], "seed {seed}");
    }
}

#[test]
fn after_a_resignation_the_next_node_takes_over_within_its_skew_time() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.run(Duration::from_secs(2));
        let master = world.best();
        // Not while the last advertisement is in transit: it may arrive after the resignation.
        let in_between = |world: &World| {
            let due = world.nodes[master].election.poll_timeout().expect("a timer runs");
            (2 * DELAY..=4 * DELAY).contains(&(due - world.local(master)))
        };
        while !in_between(&world) {
            world.run(GRAIN);
        }
        let now = world.local(master);
        world.nodes[master].election.stop(now);
        world.after(master);
        let others = (0..world.nodes.len()).filter(|&i| i != master);
        let next = others.max_by_key(|&i| world.nodes[i].priority).expect("another node exists");
        let skew = TENTH * (256 - u32::from(world.nodes[next].priority)) / 256;
        let until = world.now + skew.mul_f64(1.0 + DRIFT) + DELAY + GRAIN;
        while world.now < until {
            world.run(GRAIN);
            assert!(!world.masters().is_empty(), "seed {seed}: a node always holds the addresses");
        }
        assert!(world.nodes[next].has, "seed {seed}");
        world.run(DELAY);
        assert_eq!(world.masters(), [next], "seed {seed}");
    }
}

/// Without loss and stalls two nodes are master only until the lower one receives the other's
/// advertisement: their timers may end within one transmission time.
#[test]
fn without_failures_two_masters_exist_for_at_most_one_transmission_time() {
    let mut longest = Duration::ZERO;
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.run(Duration::from_secs(2));
        world.crash(world.best());
        world.run(Duration::from_secs(2));
        assert!(
            world.two_since.is_none() && world.longest <= DELAY,
            "seed {seed}: {:?}",
            world.longest
        );
        longest = longest.max(world.longest);
    }
    assert!(longest > Duration::ZERO, "two masters do occur");
}

/// A stalled master releases the addresses as soon as it runs again.
#[test]
fn two_masters_exist_only_while_one_is_stalled() {
    for seed in 0..RUNS {
        let mut world = World::new(seed, PreemptMode::Always);
        world.run(Duration::from_secs(2));
        let master = world.best();
        let time = Duration::from_millis(300 + world.rng.below(3000));
        world.stall(master, time);
        world.run(time + Duration::from_millis(1));
        // It may hold them again only after it released them and waited as a backup.
        let others = world.masters().into_iter().filter(|&i| i != master).count();
        assert!(world.masters().len() <= 1 || others == 0, "seed {seed}: {:?}", world.masters());
        world.run(2 * world.election_time());
        assert_eq!(world.masters(), [master], "seed {seed}");
    }
}
