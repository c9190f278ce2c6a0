//! Whom the death of the active director's machine hurts: the figures of `docs/measurements.md`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::carried::connect;
use crate::flows::now;
use crate::pair::{self, SCHEDULERS, start_both};
use crate::world::{VIRTUAL, socket_address};

/// Connections of each age and service.
const OPENED: usize = 20;
/// The time between connections of one age and those of the next.
const AGE_STEP: Duration = Duration::from_millis(250);
const AGES: u32 = 8;

/// Asks on a connection. Returns whether it is there.
fn is_there(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream.write_all(b"w").and_then(|()| stream.read_exact(&mut [0])).is_ok()
}

#[test]
#[ignore = "takes half a minute, and prints figures"]
fn whom_the_death_of_a_machine_hurts() {
    println!("| method | scheduler | age of the connections | go on |\n|---|---|---|---|");
    for method in ["nat", "dr"] {
        let Some(world) = pair::build(method) else { return };
        let [_first, second] = start_both(&world, method);
        let mut opened = Vec::new();
        let begun = now();
        for n in 0..AGES {
            thread::sleep((AGE_STEP * n).saturating_sub(now() - begun));
            for (port, scheduler) in SCHEDULERS {
                for _ in 0..OPENED {
                    let mut stream = connect(&world, socket_address(VIRTUAL[0], port));
                    assert!(is_there(&mut stream), "it is served");
                    opened.push((scheduler, now(), stream));
                }
            }
        }
        world.set_links("director", "down");
        let died = now();
        second.wait_until("the second director takes over", true);
        for (_, scheduler) in SCHEDULERS {
            for age in 0..AGES {
                let of_age = opened.iter_mut().filter(|(of, at, _)| {
                    let steps = (died - *at).as_millis() / AGE_STEP.as_millis();
                    *of == scheduler && steps == u128::from(age)
                });
                let answers = of_age.map(|(_, _, stream)| is_there(stream)).collect::<Vec<_>>();
                let go_on = answers.iter().filter(|answers| **answers).count();
                let from = AGE_STEP * age;
                println!("| {method} | {scheduler} | {from:?} | {go_on} of {} |", answers.len());
            }
        }
    }
}
