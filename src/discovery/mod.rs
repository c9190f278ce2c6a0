//! Discovery: where the members of a set come from.
//!
//! A [`MemberSource`] says who the members are; a [`Feed`] keeps them in a
//! [`BackendSet`](crate::BackendSet), without ever emptying it because the source fails.
//!
//! | source | says | feature |
//! |---|---|---|
//! | [`StaticList`] | what it was given | |
//! | [`FileSource`] | what is in a file, whenever that changes | |
//! | [`channel()`] | what the program sends it | |
//! | [`DnsSource`] | the addresses behind a name, or an SRV record's targets, as often as they expire | `discovery-dns` |
//! | [`DiscoverSource`] | what tower's `Discover` does | `discovery-tower` |
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
//! // Open the doors when somebody can serve; how the feed does is seen at any time.
//! members.ready().await;
//! println!("{} members, {}", members.status().members, members.status().state);
//! let balancer = Balancer::new(&set, LeastConnections::new())?;
//! # let _ = balancer;
//! # Ok(())
//! # }
//! ```
//!
//! # The rules
//! - A failing source changes nothing: the members of the last good answer stay, for ever if need
//!   be. The feed asks again, says since when it fails and why, and calls members stale in time.
//! - Who is gone [drains first](RemovalPolicy); who comes back in the meantime goes on as before.
//! - A feed touches only its own members, and of those only what the source says anew. See
//!   [`Feed`] for who wins where the operator and the source disagree.
//!
//! # The text form
//! Lists as text, and files, have a member a line. What a word that begins with `#` begins is a
//! comment; empty lines are none.
//! ```text
//! # address and port    what is to be said of it, in any order
//! 10.0.0.1:80           weight=3 name=web-1
//! 10.0.0.2:80           max_connections=100 resume_below=80
//! [2001:db8::1]:80      tier=1                # when nobody of tier 0 can serve
//! ```
//! | key | values | default |
//! |---|---|---|
//! | `name` | 1 to 255 bytes without spaces, one for each member | the address |
//! | `weight` | 0 (quiesced) to 65535 | 1 |
//! | `tier` | 0 to 255, for the `priority` scheduler | 0 |
//! | `max_connections` | 0 (no limit) to 2^30 | 0 |
//! | `resume_below` | 0 (three quarters) to `max_connections` | 0 |

mod channel;
#[cfg(feature = "discovery-dns")]
mod dns;
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
pub use self::feed::{Feed, FeedHandle, FeedState, FeedStatus, MemberRefusal, RemovalPolicy};
pub use self::file::FileSource;
pub use self::member_list::{MemberListError, MemberListErrorKind};
pub use self::source::{DiscoveryError, MappedSource, MemberSource, MemberUpdate};
pub use self::static_list::StaticList;
#[cfg(feature = "discovery-tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery-tower")))]
pub use self::tower::DiscoverSource;
