//! The results that queueing theory expects of servers: the queue M/M/c/K of Erlang and Kendall.
//!
//! Requests arrive at random (Poisson), each of `workers` serves a request in a random (exponential)
//! time, and a backlog holds further requests; a request that finds the backlog full is rejected.

use std::time::Duration;

/// A server, or several servers that share one backlog.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    pub(crate) workers: u32,
    pub(crate) backlog: u32,
    /// The mean service time of a request.
    pub(crate) service: Duration,
}

/// The expected long-term results of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Answers a second.
    pub(crate) throughput: f64,
    /// The fraction of requests that are rejected.
    pub(crate) loss: f64,
    /// The mean response time, in seconds.
    pub(crate) response: f64,
}

impl Queue {
    /// Returns the requests a second that keep all workers busy: the knee of the throughput.
    pub(crate) fn capacity(&self) -> f64 {
        f64::from(self.workers) / self.service.as_secs_f64()
    }

    /// Returns the queue of several servers that share one backlog: the optimum of a balancer.
    pub(crate) fn pooled(self, servers: u32) -> Self {
        Self { workers: self.workers * servers, backlog: self.backlog * servers, ..self }
    }

    /// Returns the expected results at `rate` requests a second.
    pub(crate) fn at(&self, rate: f64) -> Expected {
        let busy = rate * self.service.as_secs_f64();
        // The unnormalized probability of each number of requests inside, each from the one before.
        let mut weights = vec![1.0];
        for inside in 1..=self.workers + self.backlog {
            let previous = weights[weights.len() - 1];
            weights.push(previous * busy / f64::from(inside.min(self.workers)));
        }
        let sum: f64 = weights.iter().sum();
        let loss = weights[weights.len() - 1] / sum;
        let inside: f64 = weights.iter().zip(0u32..).map(|(weight, n)| weight * f64::from(n)).sum();
        let throughput = rate * (1.0 - loss);
        // Little's law.
        Expected { throughput, loss, response: inside / sum / throughput }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reproduces_textbook_values() {
        let second = Duration::from_secs(1);
        // M/M/1: 1 / (mu - lambda), with a backlog that is never full.
        let single = Queue { workers: 1, backlog: 1000, service: second };
        assert!((single.at(0.5).response - 2.0).abs() < 1e-9);
        // Erlang's B of two trunks and one erlang is a fifth; of five and three 0.110.
        let two = Queue { workers: 2, backlog: 0, service: second };
        assert!((two.at(1.0).loss - 0.2).abs() < 1e-9);
        let five = Queue { workers: 5, backlog: 0, service: second };
        assert!((five.at(3.0).loss - 0.110).abs() < 5e-4);
        // Far beyond the knee the throughput is the capacity.
        let four = Queue { workers: 4, backlog: 40, service: Duration::from_millis(10) };
        assert!((four.at(4000.0).throughput - four.capacity()).abs() < 1.0);
        assert_eq!(four.pooled(2).capacity(), 800.0);
    }
}
