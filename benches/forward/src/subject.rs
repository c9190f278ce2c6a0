//! The subjects of a run: this crate's forwarder, the peers that it is compared with, and none.

use crate::machine::Peers;
use crate::traffic::Traffic;

/// A forwarder that is measured, or none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    /// No forwarder: clients use the backends round robin. The most that the machine can do.
    Direct,
    /// This crate's forwarder, one worker.
    Lvs,
    /// This crate's forwarder as another build of this program has it.
    LvsBefore,
    /// HAProxy in TCP mode, one thread, default settings.
    Haproxy,
    /// A second process of the same HAProxy: differences from the first are noise.
    HaproxyAgain,
    /// HAProxy configured to always splice both directions.
    HaproxySplice,
    /// nginx's stream module, one process.
    Nginx,
    /// A second process of the same nginx.
    NginxAgain,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Lvs => "lvs",
            Self::LvsBefore => "lvs-before",
            Self::Haproxy => "haproxy",
            Self::HaproxyAgain => "haproxy-aa",
            Self::HaproxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
            Self::NginxAgain => "nginx-aa",
        }
    }

    /// Tells whether the subject is installed and forwards this traffic.
    pub(crate) fn is_available(self, peers: &Peers, traffic: Traffic) -> bool {
        match self {
            Self::Direct => true,
            Self::Lvs => traffic == Traffic::Tcp || crate::lvs::HAS_UDP,
            Self::LvsBefore => peers.before.is_some(),
            Self::Haproxy | Self::HaproxyAgain | Self::HaproxySplice => {
                peers.haproxy.is_some() && traffic == Traffic::Tcp
            }
            Self::Nginx | Self::NginxAgain => peers.nginx.is_some(),
        }
    }
}
