//! Errors of a balancer as gRPC statuses.

use std::fmt::Write;

use ::tower::BoxError;
use http::{HeaderMap, HeaderValue, Response};

use crate::tower::error::BalanceError;

/// Returns the gRPC status code of an error of a balancer: `UNAVAILABLE` (14) if no backend can be picked
/// or none is ready, `DEADLINE_EXCEEDED` (4) after a [timeout](crate::tower::Balance::timeout),
/// `INVALID_ARGUMENT` (3) without a key, `INTERNAL` (13) for a caller's fault.
///
/// Clients try a call again after `UNAVAILABLE`; without a status they see `UNKNOWN`.
#[must_use]
pub const fn grpc_status(error: &BalanceError) -> u8 {
    match error {
        BalanceError::NoBackend { .. } | BalanceError::Busy { .. } => 14,
        BalanceError::Timeout { .. } => 4,
        BalanceError::NoKey => 3,
        BalanceError::NotReady => 13,
    }
}

/// Answers a [`BalanceError`] by a response with its [gRPC status](grpc_status), as a server does that
/// cannot serve a call. Other errors are passed on: those of tonic's channels have a status.
///
/// # Errors
/// Returns the error of the request, if it is not a [`BalanceError`].
///
/// # Examples
/// ```
/// use http::{Request, Response};
/// use lvs::scheduler::RoundRobin;
/// use lvs::tower::{Balance, grpc_error_response};
/// use lvs::{BackendSet, Balancer, Spec};
/// use tower::{BoxError, ServiceExt, service_fn};
/// # use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let set = BackendSet::new();
/// let instance = service_fn(async |_: Request<String>| Ok::<_, BoxError>(Response::new(String::new())));
/// set.insert(Spec::new("a", instance).weight(0))?;
/// let balance = Balance::new(Balancer::new(&set, RoundRobin::new())?);
/// # let balance = balance.wait_timeout(Duration::ZERO);
/// let service = balance.map_result(grpc_error_response);
/// let response = service.oneshot(Request::new(String::new())).await?;
/// assert_eq!(response.headers()["grpc-status"], "14", "UNAVAILABLE");
/// # Ok(())
/// # }
/// ```
pub fn grpc_error_response<B: Default>(
    result: Result<Response<B>, BoxError>,
) -> Result<Response<B>, BoxError> {
    let error = match result {
        Ok(response) => return Ok(response),
        Err(error) => error.downcast::<BalanceError>()?,
    };
    let mut response = Response::new(B::default());
    write_status(response.headers_mut(), grpc_status(&error), &error.to_string());
    Ok(response)
}

fn write_status(headers: &mut HeaderMap, status: u8, message: &str) {
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    // Percent-encoded text is a valid header.
    if let Ok(message) = HeaderValue::from_str(&percent_encode(message)) {
        headers.insert("grpc-message", message);
    }
}

/// Encodes a message as the protocol of gRPC demands: all but the printable characters of ASCII.
fn percent_encode(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(byte.into()),
            // Writing to a string does not fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::balancer::PickError;

    #[test]
    fn an_error_of_the_balancer_is_a_response_with_a_status_and_a_message() {
        let reason = PickError::AllDown;
        let error = BalanceError::NoBackend { reason, waited: Duration::from_micros(5) };
        let response = grpc_error_response::<String>(Err(error.into())).expect("a response");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(
            response.headers()["grpc-message"],
            "no backend for the request after 5%C2%B5s: every backend is down"
        );
        let error = grpc_error_response::<()>(Err("refused".into())).expect_err("another error");
        assert_eq!(error.to_string(), "refused");
        grpc_error_response(Ok(Response::new(()))).expect("a response is passed on");
    }
}
