//! HTTP and gRPC: keys, classifiers, and bodies that hold the lease.

mod body;
mod grpc_error;
mod keys;
mod safe_request;
mod served_by;
mod status;

pub use self::body::{LeasedBody, OnBodyEnd};
pub use self::grpc_error::{grpc_error_response, grpc_status};
pub use self::keys::{CookieKey, ExtensionKey, HeaderKey, PathKey, PeerKey};
pub(super) use self::safe_request::copy_safe_request;
pub use self::served_by::{NamedResponses, ServedBy};
pub use self::status::{ClassifyTrailers, GrpcStatusClassifier, HttpStatusClassifier};
