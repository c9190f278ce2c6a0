//! The admin server: status page, metrics, and an API for the status and for changes by operators.
//!
//! What clients can use up is bounded: connections, in all and of each client, the time of a request and
//! of its answer, the bytes of a request. A client that holds connections loses them to those that send
//! requests, so that `/healthz` and `/metrics` answer whoever holds connections. All of it runs in one thread of the lowest priority: slow or many requests delay other requests, and
//! take no processor time from the threads that forward traffic.

mod access;
mod api;
mod connections;
mod edits;
mod engine_reader;
mod entries;
mod page;
mod response;
mod server;

pub(super) use self::api::AdminContext;
pub(super) use self::server::{AdminServer, DEFAULT_MAX_ADMIN_CONNECTIONS};
