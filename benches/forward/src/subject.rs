//! The subjects of a run: this crate's forwarder, the peers that it is compared with, and none.

use crate::machine::Peers;
use crate::traffic::Traffic;

/// Who carries the load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    /// Nobody: clients take the backends by turns. What the machine can do at most.
    Direct,
    /// This crate's forwarder, one worker.
    Lvs,
    /// HAProxy in TCP mode, one thread, as it comes.
    Haproxy,
    /// The same once more: what differs from the first is noise.
    HaproxyAgain,
    /// HAProxy told to splice both directions always.
    HaproxySplice,
    /// nginx's stream module, one process.
    Nginx,
    /// The same once more.
    NginxAgain,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Lvs => "lvs",
            Self::Haproxy => "haproxy",
            Self::HaproxyAgain => "haproxy-aa",
            Self::HaproxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
            Self::NginxAgain => "nginx-aa",
        }
    }

    /// Can it take part on this machine, with this traffic?
    pub(crate) fn is_there(self, peers: &Peers, traffic: Traffic) -> bool {
        match self {
            Self::Direct => true,
            Self::Lvs => traffic == Traffic::Tcp || crate::lvs::HAS_UDP,
            Self::Haproxy | Self::HaproxyAgain | Self::HaproxySplice => {
                peers.haproxy.is_some() && traffic == Traffic::Tcp
            }
            Self::Nginx | Self::NginxAgain => peers.nginx.is_some(),
        }
    }
}
