//! A subject of the comparison, how it is measured, and the inputs that all subjects share.

use std::time::{Duration, Instant};

/// The measured function, which does `steps` steps in a call.
type Step = Box<dyn FnMut(u64)>;

pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) backends: usize,
    step: Step,
    /// The number of steps that take about one slice of time.
    steps: u64,
    rounds: Vec<f64>,
}

impl Subject {
    pub(crate) fn new(
        name: impl Into<String>,
        backends: usize,
        step: impl FnMut(u64) + 'static,
    ) -> Self {
        let (name, step) = (name.into(), Box::new(step));
        Self { name, backends, step, steps: 1, rounds: Vec::new() }
    }

    /// Warms up, and sets the number of steps that fill a slice.
    pub(crate) fn calibrate(&mut self, slice: Duration) {
        while self.steps < 1 << 32 {
            let taken = time(&mut self.step, self.steps);
            if taken >= slice / 2 {
                let nanos = (taken.as_nanos() as u64 / self.steps).max(1);
                self.steps = (slice.as_nanos() as u64 / nanos).max(1);
                return;
            }
            self.steps *= 2;
        }
    }

    /// Measures one round.
    pub(crate) fn measure(&mut self) {
        let nanos = time(&mut self.step, self.steps).as_nanos() as f64;
        self.rounds.push(nanos / self.steps as f64);
    }

    pub(crate) fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench is a shell: it reads the clock")]
fn time(step: &mut Step, steps: u64) -> Duration {
    let start = Instant::now();
    step(steps);
    start.elapsed()
}

/// Returns the different addresses of `n` backends.
pub(crate) fn addresses(n: usize) -> impl Iterator<Item = std::net::SocketAddr> {
    (0..n).map(|i| ([10, 0, (i >> 8) as u8, i as u8], 80).into())
}

/// Returns the keys of all subjects: the same sequence, spread over all values and without
/// repetition, so that caches of the processor help no more than in use.
pub(crate) fn keys() -> impl FnMut() -> u64 {
    let mut x = 0u64;
    move || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (x ^ (x >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }
}
