//! Whatever happens to a VRRP router, in whatever order: it has the addresses exactly while it is
//! master, says goodbye with priority 0 alone, and always has a next turn while it takes part.
//!
//! ```text
//! cargo +nightly fuzz run vrrp_events
//! ```
#![no_main]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::vrrp::{Group, Heard, Output, Preempt, RouterConfig, State};

#[derive(Arbitrary, Debug)]
struct Input {
    priorities: [u8; 2],
    alone: bool,
    preempt: Option<u8>,
    start_delay: u8,
    events: Vec<(u16, u8, Event)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Event {
    Start,
    Stop,
    Turn,
    /// At the time that it asked for.
    Due,
    Advert {
        number: u8,
        priority: u8,
        hundredths: u16,
    },
    Priority(u8),
    Fault(bool),
}

fuzz_target!(|input: Input| {
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    let mut now = Instant::now();
    let preempt = match input.preempt {
        None => Preempt::Always,
        Some(255) => Preempt::Never,
        Some(tenths) => Preempt::After(Duration::from_millis(100 * u64::from(tenths))),
    };
    let config = |priority: &u8| {
        RouterConfig::new(51, IpAddr::from([10, 0, 0, 5]))
            .priority(*priority)
            .interval(Duration::from_millis(100))
            .preempt(preempt)
            .start_delay(Duration::from_millis(u64::from(input.start_delay)))
    };
    let count = if input.alone { 1 } else { 2 };
    let Ok(mut group) = Group::new(input.priorities[..count].iter().map(config)) else { return };
    let mut has = vec![false; count];
    for (millis, which, event) in input.events {
        now += Duration::from_millis(u64::from(millis));
        let which = usize::from(which) % count;
        match event {
            Event::Start => group.start(now),
            Event::Stop => group.stop(now),
            Event::Turn => group.handle_timeout(now),
            Event::Due => {
                now = group.poll_timeout().unwrap_or(now).max(now);
                group.handle_timeout(now);
            }
            Event::Advert { number, priority, hundredths } => {
                let source = IpAddr::from([10, 0, 0, number]);
                let interval = Duration::from_millis(10 * u64::from(hundredths.clamp(1, 4095)));
                group.handle_advert(now, which, &Heard { source, priority, interval });
            }
            Event::Priority(priority) => group.set_priority(now, which, priority),
            Event::Fault(is_fault) => group.set_fault(now, which, is_fault),
        }
        while let Some((which, output)) = group.poll_output() {
            match output {
                Output::Acquire => assert!(!std::mem::replace(&mut has[which], true)),
                Output::Release => assert!(std::mem::replace(&mut has[which], false)),
                _ => {}
            }
        }
        for (router, has) in group.routers().iter().zip(&has) {
            assert_eq!(router.state() == State::Master, *has);
            let takes_part = matches!(router.state(), State::Master | State::Backup);
            assert!(router.poll_timeout().is_some() || !takes_part);
        }
        let masters = has.iter().filter(|has| **has).count();
        assert!(masters == 0 || masters == count, "all or none");
    }
});
