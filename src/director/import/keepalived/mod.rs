//! Conversion of `keepalived.conf`: a file for each block.
//!
//! `source.rs` reads the lines of all files and resolves definitions, `syntax.rs` makes directives of
//! them, `keyword_list.rs` lists every keyword of keepalived and what becomes of it, `keywords.rs` reports
//! by that list, and the other files convert a kind of block each.

mod address_range;
mod checker;
mod configuration;
mod forwarding_method;
mod global;
mod ipvs_table;
mod keyword_fate;
mod keyword_list;
mod keywords;
mod listen_addresses;
mod real_server;
mod sequence;
mod source;
mod syntax;
mod tracks;
mod values;
mod virtual_router;
mod virtual_server;
mod vrrp;

pub(super) use self::configuration::import;
