//! The admin server: status page, metrics, and an API for the status and for changes by operators.
//!
//! What clients can use up is bounded: connections, the time of a request, the bytes of a request. All
//! of it runs in one thread of the lowest priority: slow or many requests delay other requests, and
//! take no processor time from the threads that forward traffic.

mod access;
mod api;
mod page;
mod response;
mod server;

pub(super) use self::api::AdminContext;
pub(super) use self::server::{AdminServer, DEFAULT_MAX_ADMIN_CONNECTIONS};
