//! Helpers: virtual routers by number, and a clock that the test advances.

use std::net::IpAddr;
use std::time::{Duration, Instant};

pub(crate) use lvs::vrrp::{
    Election, ElectionConfig, ElectionOutput, PreemptMode, ReceivedAdvert, TransitionReason,
    VrrpState, VrrpSyncGroup, VrrpTransition,
};

pub(crate) const TENTH: Duration = Duration::from_millis(100);

pub(crate) fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    Instant::now()
}

/// Returns the source address of the router of this number.
pub(crate) fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 88, 0, number])
}

/// Returns the settings of the router of this number, with ten advertisements a second.
pub(crate) fn config(number: u8, priority: u8) -> ElectionConfig {
    ElectionConfig::new(51, address(number)).priority(priority).interval(TENTH)
}

/// Returns an advertisement of the router of this number.
pub(crate) fn advert(number: u8, priority: u8) -> ReceivedAdvert {
    ReceivedAdvert { source: address(number), priority, interval: TENTH }
}

/// Returns all outputs of an election.
pub(crate) fn outputs(election: &mut Election) -> Vec<ElectionOutput> {
    std::iter::from_fn(|| election.poll_output()).collect()
}

/// Returns the outputs of an election without changes of the state.
pub(crate) fn actions(election: &mut Election) -> Vec<ElectionOutput> {
    let is_action = |output: &ElectionOutput| !matches!(output, ElectionOutput::StateChanged(_));
    outputs(election).into_iter().filter(is_action).collect()
}

/// Returns the changes of the state among the outputs of an election.
pub(crate) fn transitions(election: &mut Election) -> Vec<VrrpTransition> {
    let transition = |output| match output {
        ElectionOutput::StateChanged(transition) => Some(transition),
        _ => None,
    };
    outputs(election).into_iter().filter_map(transition).collect()
}
