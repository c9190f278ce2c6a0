//! VRRP: which of several directors has the virtual addresses.
//!
//! Routers that share a *virtual router* number elect a master by priority. The master advertises
//! itself; the backups count the time since they heard it last, and the one with the highest
//! priority is the first whose patience ends. RFC 9568 (version 3, for IPv4 and IPv6), and RFC 3768
//! (version 2, IPv4 alone) for peers that know no better. Its *Active Router* is called master here,
//! as operators and keepalived do.
//!
//! This much is here so far: the messages ([`Advert`], [`Message`]), their signatures ([`Signer`],
//! [`Verifier`]), and the election ([`Router`], [`Group`]), without a socket or a clock. What sends, receives and moves addresses is to come.
//!
//! # An election by hand
//! ```
//! use std::time::{Duration, Instant};
//! use lvs::vrrp::{Output, Router, RouterConfig, State};
//!
//! let now = Instant::now();
//! let config = RouterConfig::new(51, "10.88.0.1".parse()?)
//!     .priority(150)
//!     .interval(Duration::from_millis(100));
//! let mut router = Router::new(config)?;
//! router.start(now);
//! assert_eq!(router.state(), State::Backup);
//!
//! // Nobody is heard until its patience ends.
//! let due = router.poll_timeout().expect("it waits");
//! router.handle_timeout(due);
//! assert_eq!(router.state(), State::Master);
//! assert!(std::iter::from_fn(|| router.poll_output()).any(|output| output == Output::Acquire));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod advert;
mod auth;
mod checksum;
mod config;
mod error;
mod group;
mod router;
mod shell;
mod track;

pub use self::advert::{Advert, Envelope, Message};
pub use self::auth::{AuthError, Key, KeyLength, Signer, Verifier};
pub use self::checksum::Checksum;
pub use self::config::{Preempt, RouterConfig, Version};
pub use self::error::{AdvertError, ConfigError};
pub use self::group::Group;
pub use self::router::{Heard, Output, Router, State, Transition, Why};
pub use self::shell::{
    AddressError, Adverts, Ended, Event, Events, HeardView, Notify, RouterView, StartError, View,
    VirtualAddress, VirtualRoute, VirtualRouter, Vrrp, What,
};
pub use self::track::{Impact, Tracks, UnknownTrack};
