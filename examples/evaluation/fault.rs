//! The failures of the redundancy part, and the time within which clients may notice each.

use std::time::Duration;

use crate::balancer::{ADVERT, CHECK};

/// The namespaces and the priorities of the two directors.
pub(crate) const PRIORITIES: [(&str, u8); 2] = [("a", 150), ("b", 100)];

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
            Self::DirectorLinkDown => "the link of the active director goes down",
            Self::DirectorShutDown => "the active director is shut down (SIGTERM)",
            Self::DirectorRestarted => "the preferred director is restarted",
            Self::ServerAndDirectorKilled => "a real server and the active director are killed",
        }
    }

    pub(crate) fn is_of_server(self) -> bool {
        matches!(self, Self::ServerKilled | Self::ServerStopped | Self::ServerRestarted)
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
