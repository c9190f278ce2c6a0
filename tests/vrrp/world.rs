//! Routers by number, and a clock that the test moves.

use std::net::IpAddr;
use std::time::{Duration, Instant};

pub(crate) use lvs::vrrp::{
    Election, ElectionConfig, ElectionOutput, PreemptMode, ReceivedAdvert, TransitionReason,
    VrrpState, VrrpSyncGroup,
};

pub(crate) const TENTH: Duration = Duration::from_millis(100);

pub(crate) fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    Instant::now()
}

/// The address of a router by its number.
pub(crate) fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 88, 0, number])
}

/// A router of this number, with adverts ten times a second.
pub(crate) fn config(number: u8, priority: u8) -> ElectionConfig {
    ElectionConfig::new(51, address(number)).priority(priority).interval(TENTH)
}

pub(crate) fn heard(number: u8, priority: u8) -> ReceivedAdvert {
    ReceivedAdvert { source: address(number), priority, interval: TENTH }
}

/// All that a router wants done.
pub(crate) fn outputs(router: &mut Election) -> Vec<ElectionOutput> {
    std::iter::from_fn(|| router.poll_output()).collect()
}

/// What it wants done but for the news of its state.
pub(crate) fn deeds(router: &mut Election) -> Vec<ElectionOutput> {
    let is_deed = |output: &ElectionOutput| !matches!(output, ElectionOutput::StateChanged(_));
    outputs(router).into_iter().filter(is_deed).collect()
}
