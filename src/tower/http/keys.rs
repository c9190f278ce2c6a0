//! Keys of HTTP requests. Each is the [`hash_bytes`] of a part of the request with seed 0, and so the
//! same in every process.

use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};

use http::header::COOKIE;
use http::{HeaderName, Request};

use crate::scheduler::hash_bytes;
use crate::tower::key::RequestKey;

/// A [`RequestKey`] of a header's value; of several headers of the name, the first counts.
///
/// # Examples
/// ```
/// use lvs::tower::{HeaderKey, RequestKey};
///
/// let key = HeaderKey::new(http::HeaderName::from_static("x-user"));
/// let request = http::Request::builder().header("X-User", "ann").body(()).expect("a request");
/// assert!(key.key(&request).is_some());
/// assert!(key.key(&http::Request::new(())).is_none());
/// ```
#[derive(Clone, Debug)]
pub struct HeaderKey {
    name: HeaderName,
}

impl HeaderKey {
    /// Creates the key of this header's value.
    #[must_use]
    pub fn new(name: HeaderName) -> Self {
        Self { name }
    }
}

impl<B> RequestKey<Request<B>> for HeaderKey {
    fn key(&self, request: &Request<B>) -> Option<u64> {
        Some(hash_bytes(request.headers().get(&self.name)?.as_bytes(), 0))
    }
}

/// A [`RequestKey`] of a cookie's value (RFC 6265, section 4.2), such as a session.
#[derive(Clone, Debug)]
pub struct CookieKey {
    name: Box<[u8]>,
}

impl CookieKey {
    /// Creates the key of the value of the cookie of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.as_bytes().into() }
    }
}

impl CookieKey {
    /// Returns the value of the cookie in a request, if there is one.
    #[must_use]
    pub fn value<'a, B>(&self, request: &'a Request<B>) -> Option<&'a [u8]> {
        let headers = request.headers().get_all(COOKIE).into_iter();
        let pairs = headers.flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
        pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
            pair.strip_prefix(&*self.name)?.strip_prefix(b"=").filter(|value| !value.is_empty())
        })
    }
}

impl<B> RequestKey<Request<B>> for CookieKey {
    fn key(&self, request: &Request<B>) -> Option<u64> {
        Some(hash_bytes(self.value(request)?, 0))
    }
}

/// A [`RequestKey`] of the path, or of its first segments. The query does not count.
#[derive(Clone, Copy, Debug)]
pub struct PathKey {
    segments: usize,
}

impl PathKey {
    /// Creates the key of the whole path.
    #[must_use]
    pub const fn whole() -> Self {
        Self { segments: usize::MAX }
    }

    /// Creates the key of the path's first segments: of `/shop/cart/7`, 1 is `/shop`. A path with fewer
    /// segments counts as a whole.
    #[must_use]
    pub const fn first(segments: usize) -> Self {
        Self { segments }
    }
}

impl<B> RequestKey<Request<B>> for PathKey {
    fn key(&self, request: &Request<B>) -> Option<u64> {
        let path = request.uri().path();
        let mut slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
        let end = slashes.nth(self.segments).map_or(path.len(), |(index, _)| index);
        Some(hash_bytes(&path.as_bytes()[..end], 0))
    }
}

/// A [`RequestKey`] of the peer's address without its port.
///
/// The code that accepts a connection must put the address into the request's extensions, as a
/// [`SocketAddr`] or an [`IpAddr`]. An IPv4 address and its IPv4-mapped IPv6 address give the same key.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerKey;

impl<B> RequestKey<Request<B>> for PeerKey {
    fn key(&self, request: &Request<B>) -> Option<u64> {
        let extensions = request.extensions();
        let peer = extensions.get::<SocketAddr>().map(SocketAddr::ip);
        match peer.or_else(|| extensions.get::<IpAddr>().copied())?.to_canonical() {
            IpAddr::V4(ip) => Some(hash_bytes(&ip.octets(), 0)),
            IpAddr::V6(ip) => Some(hash_bytes(&ip.octets(), 0)),
        }
    }
}

/// A [`RequestKey`] of an extension of the request, as bytes: for example a tenant's name that an outer
/// layer has put there.
#[derive(Debug)]
pub struct ExtensionKey<T> {
    extension: PhantomData<fn() -> T>,
}

impl<T> ExtensionKey<T> {
    /// Creates the key of the extension of this type.
    #[must_use]
    pub const fn new() -> Self {
        Self { extension: PhantomData }
    }
}

impl<T> Default for ExtensionKey<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for ExtensionKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ExtensionKey<T> {}

impl<B, T: AsRef<[u8]> + Send + Sync + 'static> RequestKey<Request<B>> for ExtensionKey<T> {
    fn key(&self, request: &Request<B>) -> Option<u64> {
        Some(hash_bytes(request.extensions().get::<T>()?.as_ref(), 0))
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)], path: &str) -> Request<()> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    fn key_of(text: &str) -> Option<u64> {
        Some(hash_bytes(text.as_bytes(), 0))
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let key = CookieKey::new("id");
        let key_in = |value: &str| key.key(&request(&[("cookie", value)], "/"));
        assert_eq!(key_in("id=7"), key_of("7"));
        assert_eq!(key_in("a=b; id=7; id=8"), key_of("7"));
        assert_eq!(key_in("sid=1;id=a=b"), key_of("a=b"));
        for header in ["idx=7", "id", "id=", "", "a=id=7"] {
            assert_eq!(key_in(header), None, "{header}");
        }
        assert_eq!(key.key(&request(&[("cookie", "a=b"), ("cookie", "id=9")], "/")), key_of("9"));
    }

    #[test]
    fn a_path_key_ignores_the_query_and_further_segments() {
        let key = |segments, path| PathKey::first(segments).key(&request(&[], path));
        assert_eq!(key(1, "/shop/cart/7?x=/y"), key_of("/shop"));
        assert_eq!(key(2, "/shop/cart/7"), key_of("/shop/cart"));
        assert_eq!(key(9, "/shop"), key_of("/shop"));
        assert_eq!(key(0, "/shop"), key_of(""));
        assert_eq!(PathKey::whole().key(&request(&[], "/a/b?c")), key_of("/a/b"));
    }

    #[test]
    fn a_peer_key_is_the_canonical_address_without_port() {
        let key = |peer: &str| {
            let mut request = request(&[], "/");
            request.extensions_mut().insert(peer.parse::<SocketAddr>().expect("an address"));
            PeerKey.key(&request)
        };
        assert_eq!(key("192.0.2.7:1"), key("[::ffff:192.0.2.7]:2"));
        assert_ne!(key("192.0.2.7:1"), key("192.0.2.8:1"));
        assert_eq!(PeerKey.key(&request(&[], "/")), None);
        let mut tenant = request(&[], "/");
        tenant.extensions_mut().insert("acme");
        assert_eq!(ExtensionKey::<&str>::new().key(&tenant), key_of("acme"));
    }
}
