//! HTTP and gRPC: keys, classifiers, and bodies that hold the lease.

mod body;
mod keys;
mod status;

pub use self::body::{LeasedBody, OnBodyEnd};
pub use self::keys::{CookieKey, ExtensionKey, HeaderKey, PathKey, PeerKey};
pub use self::status::{ClassifyTrailers, GrpcStatusClassifier, HttpStatusClassifier};
