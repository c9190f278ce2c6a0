//! The failures of the redundancy part, and the time within which clients may notice each.

use std::time::Duration;

use crate::balancer_spec::{ADVERT, CHECK};
use crate::network::Machine;

/// The two directors and their priorities.
pub(crate) const PRIORITIES: [(Machine, u8); 2] =
    [(Machine::FirstDirector, 150), (Machine::SecondDirector, 100)];

/// A failure of the redundancy part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    ServerKilled,
    ServerStopped,
    ServerRestarted,
    DirectorKilled,
    DirectorStopped,
    DirectorLinkDown,
    DirectorShutDown,
    DirectorRestarted,
    ServerAndDirectorKilled,
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::ServerKilled,
        Self::ServerStopped,
        Self::ServerRestarted,
        Self::DirectorKilled,
        Self::DirectorStopped,
        Self::DirectorLinkDown,
        Self::DirectorShutDown,
        Self::DirectorRestarted,
        Self::ServerAndDirectorKilled,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ServerKilled => "a real server is killed",
            Self::ServerStopped => "a real server is stopped (SIGSTOP)",
            Self::ServerRestarted => "a real server is killed, and restarted after a second",
            Self::DirectorKilled => "the active director is killed",
            Self::DirectorStopped => "the active director is stopped (SIGSTOP)",
            Self::DirectorLinkDown => "the links of the active director go down",
            Self::DirectorShutDown => "the active director is shut down (SIGTERM)",
            Self::DirectorRestarted => "the preferred director is restarted",
            Self::ServerAndDirectorKilled => "a real server and the active director are killed",
        }
    }

    /// Returns a name for a chart.
    pub(crate) fn short_name(self) -> &'static str {
        match self {
            Self::ServerKilled => "server killed",
            Self::ServerStopped => "server stopped (SIGSTOP)",
            Self::ServerRestarted => "server killed and restarted",
            Self::DirectorKilled => "active director killed",
            Self::DirectorStopped => "active director stopped (SIGSTOP)",
            Self::DirectorLinkDown => "links of the active director down",
            Self::DirectorShutDown => "active director shut down (SIGTERM)",
            Self::DirectorRestarted => "preferred director restarted",
            Self::ServerAndDirectorKilled => "server and active director killed",
        }
    }

    pub(crate) fn is_of_server(self) -> bool {
        matches!(self, Self::ServerKilled | Self::ServerStopped | Self::ServerRestarted)
    }

    /// Returns whether the first of the real servers fails.
    pub(crate) fn fails_server(self) -> bool {
        self.is_of_server() || self == Self::ServerAndDirectorKilled
    }

    /// Returns the time after the failure from which no new request may be lost.
    pub(crate) fn bound(self) -> Duration {
        // RFC 9568, section 6.1.
        let skew = ADVERT * (256 - u32::from(PRIORITIES[1].1)) / 256;
        match self {
            // The interval until the next check, and two checks that time out; intervals vary by a
            // twentieth.
            Self::ServerKilled | Self::ServerStopped | Self::ServerRestarted => CHECK * 63 / 20,
            Self::DirectorShutDown => skew,
            Self::DirectorRestarted => ADVERT,
            Self::DirectorKilled
            | Self::DirectorStopped
            | Self::DirectorLinkDown
            | Self::ServerAndDirectorKilled => ADVERT * 3 + skew,
        }
    }
}
