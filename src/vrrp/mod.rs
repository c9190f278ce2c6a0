//! VRRP: elects which of several directors holds the virtual addresses.
//!
//! Routers with the same *virtual router* number elect a master by priority. The master sends
//! advertisements. A backup measures the time since the last advertisement, and becomes master when
//! its master-down interval ends, which is shorter the higher its priority is. The module implements
//! RFC 9568 (version 3, for IPv4 and IPv6), and RFC 3768 (version 2, for IPv4 only) for peers without
//! version 3. The RFC's *Active Router* is called master here, as in keepalived.
//!
//! [`Vrrp`] runs virtual routers on this machine, in a thread of its own: it sends and receives
//! advertisements, and holds the addresses while it is master. Programs that bring their own network
//! use the parts below it, which have no socket and no clock: the messages ([`Advert`],
//! [`OutgoingAdvert`]), their signatures ([`AdvertSigner`], [`AdvertVerifier`]), and the election
//! ([`Election`], [`VrrpSyncGroup`]).
//!
//! The module interoperates with keepalived 2.2, in either role, in every version, address family and
//! interval; and, according to its description, with the `auth_hmac` of keepalived 2.3.
//!
//! # When a master fails
//! | what happens to the master | when another router holds the addresses | what its machine does |
//! |---|---|---|
//! | it is stopped | after the successor's skew time, a part of one interval | holds them until the successor does; for an interval and a quarter if there is none |
//! | its link goes down, or its source address is removed | after three to four intervals | has released them |
//! | the process is killed, or its machine crashes | after three to four intervals | the kernel removes them |
//! | it stalls: stopped, starved, its machine suspended | after three to four intervals | the same; when the process continues, it first releases the addresses |
//!
//! A dead process cannot remove an address. The addresses are therefore installed with a *lifetime*
//! of three intervals, in whole seconds and at least one, and the lifetime is renewed three times as
//! often: the kernel removes an address that is not renewed, within a second after its lifetime ends.
//! Until then that kernel answers ARP requests for the address, beside the new master; the new master
//! therefore announces the addresses five more times, a second apart.
//!
//! Routes over IPv4 are removed with the address that is their [source](VirtualRoute::source); routes
//! over IPv6 have a lifetime of their own.
//!
//! # A partitioned network
//! Routers that do not receive each other's advertisements all become master: a router cannot
//! distinguish a dead neighbour from a cut wire. Each part of the network is then served by its own
//! master. That is intended where clients are cut off with it; where clients reach both masters, the
//! address exists twice, clients use the one that announced last, and connections break as that
//! changes. A master that receives ARP for its address from another machine reports it
//! ([`VrrpEventKind::AddressConflict`]). When the partition ends, the master with the higher priority
//! receives the other's advertisement, and advertises and announces its addresses again; the other
//! releases them at the first advertisement that it receives.
//!
//! Two links between the directors, or a link that clients use too, make a partition unlikely. Where
//! two masters must never exist, because they would corrupt what they share, an election between two
//! is not enough: that needs three members and a quorum.
//!
//! # Requirements
//! Linux, `CAP_NET_RAW` and `CAP_NET_ADMIN`. Without them, [`Vrrp::start`] returns an error that names
//! the missing capability. Listen on virtual addresses with
//! [`Forwarder::bind_nonlocal`](crate::forward::Forwarder::bind_nonlocal), before the machine has
//! them.
//!
//! # An election without the thread
//! ```
//! use std::time::{Duration, Instant};
//! use lvs::vrrp::{Election, ElectionConfig, ElectionOutput, VrrpState};
//!
//! let now = Instant::now();
//! let config = ElectionConfig::new(51, "10.88.0.1".parse()?)
//!     .priority(150)
//!     .interval(Duration::from_millis(100));
//! let mut election = Election::new(config)?;
//! election.start(now);
//! assert_eq!(election.state(), VrrpState::Backup);
//!
//! // No advertisement arrives before the master-down interval ends.
//! let deadline = election.poll_timeout().expect("a backup has a timer");
//! election.handle_timeout(deadline);
//! assert_eq!(election.state(), VrrpState::Master);
//! let mut outputs = std::iter::from_fn(|| election.poll_output());
//! assert!(outputs.any(|output| output == ElectionOutput::AcquireAddresses));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod advert;
mod auth;
mod checksum;
mod config;
mod election;
mod election_output;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "`Vrrp::start` fails there"))]
mod shell;
mod state;
mod sync_group;
mod tracked_items;

pub use self::advert::{Advert, AdvertError, IpHeaderInfo, OutgoingAdvert, ReceivedAdvert};
pub use self::auth::{AdvertAuthError, AdvertSigner, AdvertVerifier, AuthKey, AuthKeyLengthError};
pub use self::checksum::ChecksumCoverage;
pub use self::config::{ElectionConfig, PreemptMode, VrrpConfigError, VrrpVersion};
pub use self::election::Election;
pub use self::election_output::ElectionOutput;
#[cfg(all(feature = "director", target_os = "linux"))]
pub(crate) use self::shell::RouteLookup;
pub use self::shell::{
    AdvertCounters, LastAdvertStatus, MacAddress, NotifyCommand, NotifyCommands, VirtualAddress,
    VirtualAddressError, VirtualRoute, VirtualRouterConfig, VirtualRouterStatus, Vrrp, VrrpEvent,
    VrrpEventKind, VrrpEvents, VrrpStartError, VrrpStatus,
};
pub use self::state::{TransitionReason, VrrpState, VrrpTransition};
pub use self::sync_group::VrrpSyncGroup;
#[cfg(feature = "director")]
pub(crate) use self::tracked_items::BUILT_IN_TRACKS;
pub use self::tracked_items::{TrackEffect, TrackedItems, UnknownTrack};
