//! Announces addresses without an election: kernel routes that a routing daemon finds and tells to its routers.
//!
//! Several directors have the same addresses (anycast). Each announces an address while the services at it can
//! serve, routers spread clients over the directors that announce it (ECMP), and a director that fails is one way
//! less. No director must know another. What speaks to routers is a routing daemon of the machine, such as BIRD or
//! FRR, which also has BFD: it redistributes the routes of this module, which it recognizes by their protocol
//! number. `docs/scale.md` has configurations of both, as tested.
//!
//! [`Announcer`] holds the routes, in a thread of its own. [`Announcement`] below it decides what is announced; it
//! has no clock and no socket.
//!
//! # The routes
//! For each address there are two routes, with the protocol number of
//! [`AnnouncerConfig::route_protocol`]:
//!
//! - `local`, in table `local`: the kernel accepts packets to the address, as if an interface had it. It stays
//!   until the announcer is stopped, so that open connections go on when the address is withdrawn. No interface has
//!   the address: a routing daemon would announce that too. Listen on it with
//!   [`Forwarder::bind_nonlocal`](crate::forward::Forwarder::bind_nonlocal), which IPv6 requires.
//! - `unicast`, in table `main`, by the interface `lvs-announce`: the announcement. Its metric says how much the
//!   address is wanted here.
//!
//! | [state](AnnouncementState) | when | the route of table `main` |
//! |---|---|---|
//! | pending | it is not known yet whether the services can serve | as it was; none after a start |
//! | announced | the services can serve | [`metric`](AnnouncerConfig::metric) |
//! | draining | the same, and [`AnnounceMode::Drain`] is set | [`drain_metric`](AnnouncerConfig::drain_metric) |
//! | last resort | a service cannot serve | [`last_resort_metric`](AnnouncerConfig::last_resort_metric) |
//! | withdrawn | [`AnnounceMode::Withdraw`] is set; or a service cannot serve, with [`WithoutQuorum::Withdraw`] | none |
//!
//! A change adds the new route before it removes the old one.
//!
//! # When all directors are unwell
//! A director whose services cannot serve does not know whether others can. It therefore does not withdraw the
//! address: it announces it as a last resort, which routers use when no better route is left. So the address never
//! disappears because a server that all directors share failed. That needs routers that compare the metrics, as
//! the configurations of `docs/scale.md` make them do (BGP's multi-exit discriminator). Where they cannot, use
//! [`WithoutQuorum::Withdraw`].
//!
//! # When a director ends
//! | what happens | the announcement ends |
//! |---|---|
//! | it is stopped | before it stops to serve |
//! | the process is killed or crashes | at once: the kernel removes `lvs-announce` with the last process that has it open, and the routes with it |
//! | the process hangs | when a watchdog ends it, such as that of `contrib/lvs.service` |
//! | its machine crashes, or loses its link | when the routers notice: BFD, or the hold time of their routing protocol |
//! | a successor takes over (`handover` of the director) | not at all |
//!
//! `lvs-announce` is a tun device that no packet passes. Processes of one network namespace share it. The IPv6 route
//! of table `local` is by the loopback interface, because of which it outlives a process that is killed: the kernel
//! removes it when its lifetime of ten seconds is over, at the next `net.ipv6.route.gc_interval`.
//!
//! # Addresses that flap
//! An address whose services lost their quorum is preferred again
//! [`recovery_delay`](AnnouncerConfig::recovery_delay) after they have it. Each loss within
//! [`max_recovery_delay`](AnnouncerConfig::max_recovery_delay) after that doubles the delay, up to this maximum: each
//! change at the routers moves connections of all directors.
//!
//! # Requirements
//! Linux, `CAP_NET_ADMIN` and `/dev/net/tun`.
//!
//! # Examples
//! ```no_run
//! use lvs::announce::{AnnouncerConfig, AnnounceMode, Announcer};
//!
//! let address = "203.0.113.10".parse()?;
//! let announcer = Announcer::start(AnnouncerConfig::new().address(address))?;
//! announcer.set_health(address, true);
//! // Before maintenance: clients come by other directors, if there are any.
//! announcer.set_mode(AnnounceMode::Drain)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address_routes;
mod announcement;
mod config;
mod error;
mod events;
mod handle;
mod netlink;
mod routes;
mod state;
mod status;
mod thread;

pub use self::announcement::Announcement;
#[cfg(feature = "director")]
pub(crate) use self::config::MAX_ANNOUNCE_DELAY;
pub use self::config::{AnnouncerConfig, WithoutQuorum};
pub use self::error::AnnounceStartError;
pub use self::events::{AnnounceEvent, AnnounceEventKind, AnnounceEvents};
pub use self::handle::Announcer;
pub use self::routes::ANNOUNCE_INTERFACE;
pub use self::state::{AnnounceMode, AnnounceReason, AnnouncementState};
pub use self::status::{AnnounceStatus, AnnouncedAddressStatus};

#[cfg(test)]
mod tests;
