//! Discovery: the members of a set while sources report, fail and end.
#![cfg(all(feature = "discovery", not(lvs_loom)))]

#[cfg(feature = "discovery-dns")]
mod answers;
#[cfg(feature = "discovery-tower")]
mod discover;
#[cfg(feature = "discovery-dns")]
mod dns;
mod drain;
mod failing;
mod feed;
mod file;
mod member_list;
#[cfg(feature = "discovery-dns")]
mod named;
mod properties;
#[path = "../common/skipped.rs"]
mod skipped;
mod world;
