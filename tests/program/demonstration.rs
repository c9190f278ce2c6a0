//! `lvs run` without a configuration.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::world::{Director, drained_whole, get, lvs, output, signal};

/// Parses `served: alpha 2 beta 2 gamma 2, refused 0`.
fn served(line: &str) -> Option<Vec<(String, u64)>> {
    let (counts, _) = line.strip_prefix("served: ")?.split_once(',')?;
    let words: Vec<&str> = counts.split(' ').collect();
    let pairs = words.chunks(2).map(|pair| (pair[0].into(), pair[1].parse().expect("a number")));
    Some(pairs.collect())
}

#[test]
fn three_servers_answer_counters_are_shown_and_ctrl_c_ends_the_director() {
    // Round robin: a scheduler that goes by load would find the first server idle each time.
    let mut director = Director::start(&["--listen", "127.0.0.1:0", "--scheduler", "rr"]);
    let address = director.address();
    let answers: Vec<String> = (0..12).map(|_| get(address)).collect();
    for name in ["alpha", "beta", "gamma"] {
        assert!(answers.contains(&format!("Hello from {name}, request 1.\n")), "{answers:?}");
    }

    let total = |counts: &Vec<(String, u64)>| counts.iter().map(|(_, count)| count).sum::<u64>();
    let counts = director.find(|line| served(line).filter(|counts| total(counts) == 12));
    let names: Vec<&str> = counts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["alpha", "beta", "gamma"]);
    assert!(counts.iter().all(|&(_, count)| count > 0), "{counts:?}");

    director.interrupt();
    director.find(drained_whole);
    assert_eq!(director.wait().code(), Some(0));
}

#[test]
fn a_drain_waits_for_the_client_and_a_second_ctrl_c_does_not() {
    let mut director = Director::start(&["--listen", "127.0.0.1:0"]);
    let address = director.address();
    // An incomplete request keeps its connection open; the answer to a later request shows that the
    // connection was accepted.
    let mut slow = TcpStream::connect(address).expect("the director listens");
    slow.write_all(b"GET / HTTP/1.1\r\n").expect("open");
    get(address);

    director.interrupt();
    director.find(|line| line.starts_with("draining").then_some(()));
    slow.write_all(b"Host: director\r\n\r\n").expect("the connection is still open");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("the server closes the connection");
    assert!(answer.contains("Hello from"), "{answer}");
    drop(slow);
    director.find(drained_whole);
    assert_eq!(director.wait().code(), Some(0));

    let mut director = Director::start(&["--listen", "127.0.0.1:0"]);
    let address = director.address();
    let _held = TcpStream::connect(address).expect("the director listens");
    get(address);
    director.interrupt();
    director.find(|line| line.starts_with("draining").then_some(()));
    director.interrupt();
    assert_eq!(director.wait().code(), Some(130));
}

#[test]
fn sigterm_ends_the_director_as_ctrl_c_does() {
    let mut director = Director::start(&["--listen", "127.0.0.1:0"]);
    director.address();
    signal("TERM", director.child.id());
    assert_eq!(director.wait().code(), Some(0));
}

#[test]
fn an_address_in_use_is_a_clear_error() {
    let mut first = Director::start(&["--listen", "127.0.0.1:0"]);
    let address = first.address();
    let second = lvs()
        .args(["run", "--admin", "none", "--listen", &address.to_string()])
        .output()
        .expect("built");
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8(second.stderr).expect("utf-8");
    assert!(
        stderr.starts_with(&format!("error: service web: cannot listen on {address}")),
        "{stderr}"
    );
    assert!(stderr.matches("in use").count() < 2, "the cause is printed once: {stderr}");
}

#[test]
fn an_unknown_scheduler_is_named() {
    let (code, _, stderr) = output(&["run", "--scheduler", "fastest"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("fastest"), "{stderr}");
}

#[test]
fn a_demonstration_that_nobody_reads_ends() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let words = ["run", "--listen", "127.0.0.1:0", "--admin", "none"];
    let output = lvs().args(words).stdout(writer).output().expect("built");
    let stderr = String::from_utf8(output.stderr).expect("utf-8");
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("lvs stopped"), "{stderr}");
}
