//! In any sequence of inputs a VRRP election holds the addresses exactly while it is master, has a
//! timer while it is backup or master, and the members of a group are master together or not at all.
//!
//! ```text
//! cargo +nightly fuzz run vrrp_events
//! ```
#![no_main]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::vrrp::{
    ElectionConfig, ElectionOutput, PreemptMode, ReceivedAdvert, VrrpState, VrrpSyncGroup,
};

#[derive(Arbitrary, Debug)]
struct Input {
    priorities: [u8; 2],
    is_single: bool,
    preempt: Option<u8>,
    start_delay: u8,
    events: Vec<(u16, u8, Event)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Event {
    Start,
    Stop,
    Timeout,
    /// A timeout at the time that `poll_timeout` returns.
    TimeoutWhenDue,
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
        None => PreemptMode::Always,
        Some(255) => PreemptMode::Never,
        Some(tenths) => PreemptMode::After(Duration::from_millis(100 * u64::from(tenths))),
    };
    let config = |priority: &u8| {
        ElectionConfig::new(51, IpAddr::from([10, 0, 0, 5]))
            .priority(*priority)
            .interval(Duration::from_millis(100))
            .preempt(preempt)
            .start_delay(Duration::from_millis(u64::from(input.start_delay)))
    };
    let count = if input.is_single { 1 } else { 2 };
    let Ok(mut group) = VrrpSyncGroup::new(input.priorities[..count].iter().map(config)) else {
        return;
    };
    let mut has = vec![false; count];
    for (millis, index, event) in input.events {
        now += Duration::from_millis(u64::from(millis));
        let index = usize::from(index) % count;
        match event {
            Event::Start => group.start(now),
            Event::Stop => group.stop(now),
            Event::Timeout => group.handle_timeout(now),
            Event::TimeoutWhenDue => {
                now = group.poll_timeout().unwrap_or(now).max(now);
                group.handle_timeout(now);
            }
            Event::Advert { number, priority, hundredths } => {
                let source = IpAddr::from([10, 0, 0, number]);
                let interval = Duration::from_millis(10 * u64::from(hundredths.clamp(1, 4095)));
                group.handle_advert(now, index, &ReceivedAdvert { source, priority, interval });
            }
            Event::Priority(priority) => {
                assert_eq!(group.set_priority(now, index, priority).is_err(), priority == 0);
            }
            Event::Fault(is_fault) => group.set_fault(now, index, is_fault.then_some("link")),
        }
        while let Some((index, output)) = group.poll_output() {
            match output {
                ElectionOutput::AcquireAddresses => {
                    assert!(!std::mem::replace(&mut has[index], true))
                }
                ElectionOutput::ReleaseAddresses => {
                    assert!(std::mem::replace(&mut has[index], false))
                }
                _ => {}
            }
        }
        for (member, has) in group.members().iter().zip(&has) {
            assert_eq!(member.state() == VrrpState::Master, *has);
            let takes_part = matches!(member.state(), VrrpState::Master | VrrpState::Backup);
            assert!(member.poll_timeout().is_some() || !takes_part);
        }
        let masters = has.iter().filter(|has| **has).count();
        assert!(masters == 0 || masters == count, "all members are master, or none");
    }
});
