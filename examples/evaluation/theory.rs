//! What queueing theory expects of servers: the queue M/M/c/K of Erlang and Kendall.
//!
//! Requests come at random (Poisson), a server has `workers` that take a time that is random
//! (exponential) for each, and a line for so many more; whoever finds the line full is turned away.

use std::time::Duration;

/// A server, or several that have one line together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    pub(crate) workers: u32,
    pub(crate) line: u32,
    /// What one request takes of a worker, in the mean.
    pub(crate) service: Duration,
}

/// What comes of it in the long run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Answers in a second.
    pub(crate) throughput: f64,
    /// The part that is turned away.
    pub(crate) loss: f64,
    /// From the request to the answer, in the mean and in seconds.
    pub(crate) response: f64,
}

impl Queue {
    /// Requests in a second that keep all workers busy: where throughput has its knee.
    pub(crate) fn capacity(&self) -> f64 {
        f64::from(self.workers) / self.service.as_secs_f64()
    }

    /// As many servers with one line together: the best that a balancer could do.
    pub(crate) fn pooled(self, servers: u32) -> Self {
        Self { workers: self.workers * servers, line: self.line * servers, ..self }
    }

    /// What comes of so many requests in a second.
    pub(crate) fn at(&self, rate: f64) -> Expected {
        let busy = rate * self.service.as_secs_f64();
        // How likely it is that so many are inside, each next one from the one before.
        let mut likely = vec![1.0];
        for inside in 1..=self.workers + self.line {
            let before = likely[likely.len() - 1];
            likely.push(before * busy / f64::from(inside.min(self.workers)));
        }
        let sum: f64 = likely.iter().sum();
        let loss = likely[likely.len() - 1] / sum;
        let inside: f64 = likely.iter().zip(0u32..).map(|(it, n)| it * f64::from(n)).sum();
        let throughput = rate * (1.0 - loss);
        // Little's law.
        Expected { throughput, loss, response: inside / sum / throughput }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_numbers_of_the_books() {
        let second = Duration::from_secs(1);
        // M/M/1: 1 / (mu - lambda), with a line that is never full.
        let one = Queue { workers: 1, line: 1000, service: second };
        assert!((one.at(0.5).response - 2.0).abs() < 1e-9);
        // Erlang's B of two lines and one erlang is a fifth; of five and three 0.110.
        let two = Queue { workers: 2, line: 0, service: second };
        assert!((two.at(1.0).loss - 0.2).abs() < 1e-9);
        let five = Queue { workers: 5, line: 0, service: second };
        assert!((five.at(3.0).loss - 0.110).abs() < 5e-4);
        // Far beyond it the throughput is the capacity.
        let four = Queue { workers: 4, line: 40, service: Duration::from_millis(10) };
        assert!((four.at(4000.0).throughput - four.capacity()).abs() < 1.0);
        assert_eq!(four.pooled(2).capacity(), 800.0);
    }
}
