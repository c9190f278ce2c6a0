//! Copies of requests that may be sent twice.

use http::Request;
use http_body::Body;

/// Returns a copy of a request whose method is safe and whose body is empty; the copy has the default
/// body.
pub(in crate::tower) fn copy_safe_request<B: Body + Default>(
    request: &Request<B>,
) -> Option<Request<B>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use bytes::Bytes;
    use http::{Method, Version};
    use http_body_util::Full;

    use super::*;

    fn request(method: Method, body: &'static str) -> Request<Full<Bytes>> {
        let builder = Request::builder().method(method).uri("/a?b").version(Version::HTTP_11);
        let builder = builder.header("x-user", "ann").extension(7_u32);
        builder.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("a request")
    }

    #[test]
    fn a_safe_request_without_a_body_is_copied_with_its_head() {
        let copy = copy_safe_request(&request(Method::GET, "")).expect("a safe request");
        assert_eq!((copy.method(), copy.uri().to_string()), (&Method::GET, "/a?b".to_owned()));
        assert_eq!(copy.version(), Version::HTTP_11);
        assert_eq!(copy.headers()["x-user"], "ann");
        assert_eq!(copy.extensions().get(), Some(&7_u32));
        for method in [Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert!(copy_safe_request(&request(method, "")).is_some());
        }
    }

    #[test]
    fn a_request_that_changes_something_or_has_a_body_is_not_copied() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(copy_safe_request(&request(method, "")).is_none());
        }
        assert!(copy_safe_request(&request(Method::GET, "a search")).is_none());
    }
}
