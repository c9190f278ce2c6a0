//! Discovery: the sources of the members of a backend set.
//!
//! A [`MemberSource`] lists the members; a [`Feed`] keeps a [`BackendSet`](crate::BackendSet) up to
//! date with the list. A failing source never empties the set.
//!
//! | source | members | feature |
//! |---|---|---|
//! | [`StaticList`] | a fixed list | |
//! | [`FileSource`] | the lines of a file, read again when the file changes | |
//! | [`channel()`] | the members that the program sends | |
//! | [`DnsSource`] | the addresses of a name, or the targets of SRV records, again when they expire | `discovery-dns` |
//! | [`DiscoverSource`] | the services of tower's `Discover` | `discovery-tower` |
//! | your own | a type with one async method | |
//!
//! # A forwarder whose members are in DNS
//! ```no_run
//! use lvs::discovery::Feed;
//! # #[cfg(feature = "discovery-dns")]
//! use lvs::discovery::DnsSource;
//! use lvs::scheduler::LeastConnections;
//! use lvs::{BackendSet, Balancer};
//!
//! # #[cfg(feature = "discovery-dns")]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let set = BackendSet::new();
//! let feed = Feed::new(&set, DnsSource::addresses("web.example.com", 8080)?);
//! let mut members = feed.handle();
//! tokio::spawn(feed.run());
//!
//! // Accept clients only when there are members; the status can be read at any time.
//! members.ready().await;
//! println!("{} members, {}", members.status().members, members.status().state);
//! let balancer = Balancer::new(&set, LeastConnections::new())?;
//! # let _ = balancer;
//! # Ok(())
//! # }
//! ```
//!
//! # The rules
//! - A failing source changes nothing: the members of the last update stay, without a time limit.
//!   The feed retries, reports the error and since when the source fails, and calls the members
//!   stale after a time.
//! - A removed member [drains first](RemovalPolicy); a member that is listed again while it drains
//!   stays, with its counters.
//! - A feed changes only its own members, and only the attributes that the source reports
//!   differently than before. [`Feed`] describes which value wins if an operator and the source
//!   disagree.
//!
//! # What a feed needs of its runtime
//! A tokio runtime of either flavor, with time; [`DnsSource`] needs I/O too, and your own source what it
//! uses. A feed whose runtime lacks time ends at once, a name server source whose runtime lacks I/O fails;
//! the [status](FeedStatus::last_error) has the error.
//!
//! # The text form
//! Text lists and files have one member a line. A word that begins with `#` starts a comment up to
//! the end of the line; empty lines are ignored.
//! ```text
//! # address and port    attributes, in any order
//! 10.0.0.1:80           weight=3 name=web-1
//! 10.0.0.2:80           max_connections=100 resume_below=80
//! [2001:db8::1]:80      tier=1                # serves when no member of tier 0 can serve
//! ```
//! The scope of a link-local IPv6 address is a number or the name of an interface: `[fe80::1%eth0]:80`.
//!
//! | key | values | default |
//! |---|---|---|
//! | `name` | 1 to 255 bytes without spaces, unique in the list | the address |
//! | `weight` | 0 (quiesced) to 65535 | 1 |
//! | `tier` | 0 to 255, for the `priority` scheduler | 0 |
//! | `zone` | 1 to 64 ASCII letters, digits, `.`, `_`, `-` and `/`, for the `priority` scheduler | none |
//! | `max_connections` | 0 (no limit) to 2^30 | 0 |
//! | `resume_below` | 0 (three quarters) to `max_connections` | 0 |

pub(crate) mod address;
mod channel;
#[cfg(feature = "discovery-dns")]
mod dns;
mod error;
mod feed;
mod file;
mod member_list;
mod source;
mod static_list;
#[cfg(feature = "discovery-tower")]
mod tower;

pub use self::channel::{ChannelSource, MemberSendError, MemberSender, channel};
#[cfg(feature = "discovery-dns")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery-dns")))]
pub use self::dns::{AddressFamilies, DnsSource};
pub use self::error::DiscoveryError;
pub use self::feed::{Feed, FeedHandle, FeedState, FeedStatus, MemberRefusal, RemovalPolicy};
pub use self::file::FileSource;
pub use self::member_list::{MemberListError, MemberListErrorKind};
pub use self::source::{MappedSource, MemberSource, MemberUpdate};
pub use self::static_list::StaticList;
#[cfg(feature = "discovery-tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery-tower")))]
pub use self::tower::DiscoverSource;
