//! VRRP: which of several directors has the virtual addresses.
//!
//! Routers that share a *virtual router* number elect a master by priority. The master advertises
//! itself; the backups count the time since they heard it last, and the one with the highest
//! priority is the first whose patience ends. RFC 9568 (version 3, for IPv4 and IPv6), and RFC 3768
//! (version 2, IPv4 alone) for peers that know no better. Its *Active Router* is called master here,
//! as operators and keepalived do.
//!
//! [`Vrrp`] runs virtual routers on this machine, in a thread of its own: it sends and hears
//! advertisements, and has the addresses while it is master. Below it, for programs that bring a
//! network of their own, are the parts without socket or clock: the messages ([`Advert`],
//! [`OutgoingAdvert`]), their signatures ([`AdvertSigner`], [`AdvertVerifier`]), and the election ([`Election`],
//! [`VrrpSyncGroup`]).
//!
//! It works together with keepalived 2.2, in either role, in every version, family and interval; also
//! with its `auth_hmac` (2.3), by what that is described to be.
//!
//! # When a master dies
//! | what happens to it | when another has the addresses | what its machine does |
//! |---|---|---|
//! | it is told to stop | after the other's skew, a part of one interval | has them until the other has; for an interval and a quarter if there is none |
//! | its link goes down, or the address it sends from | three to four intervals | has given them up |
//! | the process is killed, or its machine dies | three to four intervals | gives them up by itself |
//! | it is held up: stopped, starved, its machine suspended | three to four intervals | the same; when it goes on, the first thing it does is to give up |
//!
//! No process that is dead can give up an address. So the addresses are put there with a *lifetime*
//! of three intervals, in whole seconds and at least one, which is renewed three times as often: what
//! is renewed no more the kernel takes away, within a second after its lifetime. Until then that
//! kernel answers whoever asks it by ARP for an address, beside the new master; which is why the new
//! one announces the addresses five times more, a second apart.
//!
//! Routes of IPv4 go with the address that is their [source](VirtualRoute::source), those of IPv6 have
//! a lifetime of their own.
//!
//! # A split network
//! Routers that do not hear each other are all masters: nothing that one of them can do tells a dead
//! neighbour from a cut wire. Each part of the network is served by its own, which is what one wants
//! where clients are cut off with it, and means an address twice where clients hear both: they go to
//! whoever they heard last, and connections break as that changes. A router that hears somebody else
//! answer for its address says so ([`VrrpEventKind::Conflict`]). When the network is whole again, the one that
//! goes before hears the other, advertises itself and announces its addresses anew; the other gives
//! them up with the first advertisement it hears.
//!
//! Two links between the directors, or a link that clients come by too, make a split unlikely. Where
//! two masters must never be, because what they share would be broken, an election between two is the
//! wrong tool: that takes three, and a quorum.
//!
//! # What it needs
//! Linux, `CAP_NET_RAW` and `CAP_NET_ADMIN`. Without, [`Vrrp::start`] names what is missing. Listen on
//! virtual addresses by [`Forwarder::bind_ahead`](crate::forward::Forwarder::bind_ahead), before they
//! are there.
//!
//! # An election by hand
//! ```
//! use std::time::{Duration, Instant};
//! use lvs::vrrp::{ElectionOutput, Election, ElectionConfig, VrrpState};
//!
//! let now = Instant::now();
//! let config = ElectionConfig::new(51, "10.88.0.1".parse()?)
//!     .priority(150)
//!     .interval(Duration::from_millis(100));
//! let mut router = Election::new(config)?;
//! router.start(now);
//! assert_eq!(router.state(), VrrpState::Backup);
//!
//! // Nobody is heard until its patience ends.
//! let due = router.poll_timeout().expect("it waits");
//! router.handle_timeout(due);
//! assert_eq!(router.state(), VrrpState::Master);
//! assert!(std::iter::from_fn(|| router.poll_output()).any(|output| output == ElectionOutput::Acquire));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod advert;
mod auth;
mod checksum;
mod config;
mod error;
mod sync_group;
mod election;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "there it refuses to start"))]
mod shell;
mod state;
mod tracked_items;

pub use self::advert::{Advert, IpHeaderInfo, OutgoingAdvert};
pub use self::auth::{AdvertAuthError, AdvertSigner, AdvertVerifier, AuthKey, AuthKeyLengthError};
pub use self::checksum::ChecksumCoverage;
pub use self::config::{ElectionConfig, PreemptMode, VrrpVersion};
pub use self::error::{AdvertError, VrrpConfigError};
pub use self::sync_group::VrrpSyncGroup;
pub use self::election::{Election, ElectionOutput, ReceivedAdvert};
pub use self::shell::{
    AdvertCounters, LastAdvertStatus, NotifyCommands, VirtualAddress, VirtualAddressError,
    VirtualRoute, VirtualRouterConfig, VirtualRouterStatus, Vrrp, VrrpEvent, VrrpEventKind,
    VrrpEvents, VrrpEventsClosed, VrrpStartError, VrrpStatus,
};
pub use self::state::{TransitionReason, VrrpState, VrrpTransition};
pub use self::tracked_items::{TrackEffect, TrackedItems, UnknownTrack};
