//! Faults of the election's threads, in a network namespace of the test; they need root.

use std::process::Command;

use super::*;
use crate::director::config::DirectorConfig;
use crate::director::handle::Director;
use crate::director::testing::{run_in_namespace, until};

/// A link `v` with the address 10.88.0.1.
const LINK: [&str; 4] = [
    "link add v type veth peer name w",
    "addr add 10.88.0.1/24 dev v",
    "link set v up",
    "link set w up",
];

fn config() -> DirectorConfig {
    let text = "[vrrp]\ninterface = \"v\"\nvirtual_router_id = 51\naddresses = [\"10.88.0.9/24\"]\n\
                advert_interval = \"100ms\"\n";
    DirectorConfig::parse(text).expect("sound")
}

#[test]
fn an_election_whose_thread_panics_is_counted_and_starts_again() {
    run_in_namespace(&LINK, async || {
        let director = Director::start(config()).await.expect("it starts");
        let restarts = || director.status().task_restarts[ELECTION_TASK];
        let is_active = || director.status().active;
        until("active", is_active).await;
        assert_eq!(restarts(), 0, "shown before the first panic");
        let first = director.vrrp().expect("an election");
        first.panic_thread();
        until("the restart", || restarts() == 1).await;
        assert!(!first.is_master(), "a thread that has ended is no master");
        drop(first);
        until("active again", is_active).await;
        assert!(director.vrrp().expect("an election").status().is_some(), "its thread answers");
        director.stop(Duration::ZERO).await;
    });
}

#[test]
fn an_election_that_cannot_start_again_is_tried_until_it_can() {
    run_in_namespace(&LINK, async || {
        let director = Director::start(config()).await.expect("it starts");
        until("active", || director.status().active).await;
        let ip = |words: &str| Command::new("ip").args(words.split(' ')).status().expect("`ip`");
        ip("link set v down");
        ip("link set v name gone");
        director.vrrp().expect("an election").panic_thread();
        until("the failure is in the status", || !director.status().failed_parts.is_empty()).await;
        assert!(!director.status().active);
        ip("link set gone name v");
        ip("link set v up");
        until("active again", || director.status().active).await;
        assert_eq!(director.status().failed_parts.len(), 0);
        director.stop(Duration::ZERO).await;
    });
}
