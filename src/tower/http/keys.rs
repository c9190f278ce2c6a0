//! Keys of HTTP requests. All hash what they find by [`hash_bytes`] with seed 0: the same in every
//! process.

use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};

use http::header::COOKIE;
use http::{HeaderName, Request};

use crate::scheduler::hash_bytes;
use crate::tower::RequestKey;

/// By a header's value; of several headers of that name, the first.
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
    /// By the value of this header.
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

/// By a cookie's value (RFC 6265, section 4.2): a session.
#[derive(Clone, Debug)]
pub struct CookieKey {
    name: Box<[u8]>,
}

impl CookieKey {
    /// By the value of the cookie of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.as_bytes().into() }
    }
}

impl<B> RequestKey<Request<B>> for CookieKey {
    fn key(&self, request: &Request<B>) -> Option<u64> {
        let headers = request.headers().get_all(COOKIE).into_iter();
        let pairs = headers.flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
        let value = pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
            pair.strip_prefix(&*self.name)?.strip_prefix(b"=").filter(|value| !value.is_empty())
        });
        Some(hash_bytes(value?, 0))
    }
}

/// By the path: all of it, or its first segments. The query does not count.
#[derive(Clone, Copy, Debug)]
pub struct PathKey {
    segments: usize,
}

impl PathKey {
    /// By the whole path.
    #[must_use]
    pub const fn whole() -> Self {
        Self { segments: usize::MAX }
    }

    /// By so many segments: of `/shop/cart/7`, 1 is `/shop`. A shorter path counts as it is.
    #[must_use]
    pub const fn first(segments: usize) -> Self {
        Self { segments }
    }
}

impl<B> RequestKey<Request<B>> for PathKey {
    fn key(&self, request: &Request<B>) -> Option<u64> {
        let path = request.uri().path();
        let mut slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
        let end = slashes.nth(self.segments).map_or(path.len(), |(at, _)| at);
        Some(hash_bytes(&path.as_bytes()[..end], 0))
    }
}

/// By the address of the peer, without its port, which whoever accepted the connection has put into
/// the request's extensions as a [`SocketAddr`] or an [`IpAddr`]. IPv4 and IPv4 mapped into IPv6 are
/// the same.
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

/// By an extension of the request, as bytes: a tenant's name, which a layer before has found out.
#[derive(Debug)]
pub struct ExtensionKey<T> {
    extension: PhantomData<fn() -> T>,
}

impl<T> ExtensionKey<T> {
    /// By the extension of this type.
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

    fn of(text: &str) -> Option<u64> {
        Some(hash_bytes(text.as_bytes(), 0))
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let key = CookieKey::new("id");
        let at = |value: &str| key.key(&request(&[("cookie", value)], "/"));
        assert_eq!(at("id=7"), of("7"));
        assert_eq!(at("a=b; id=7; id=8"), of("7"));
        assert_eq!(at("sid=1;id=a=b"), of("a=b"));
        for none in ["idx=7", "id", "id=", "", "a=id=7"] {
            assert_eq!(at(none), None, "{none}");
        }
        assert_eq!(key.key(&request(&[("cookie", "a=b"), ("cookie", "id=9")], "/")), of("9"));
    }

    #[test]
    fn paths_count_without_query_and_as_far_as_wanted() {
        let at = |segments, path| PathKey::first(segments).key(&request(&[], path));
        assert_eq!(at(1, "/shop/cart/7?x=/y"), of("/shop"));
        assert_eq!(at(2, "/shop/cart/7"), of("/shop/cart"));
        assert_eq!(at(9, "/shop"), of("/shop"));
        assert_eq!(at(0, "/shop"), of(""));
        assert_eq!(PathKey::whole().key(&request(&[], "/a/b?c")), of("/a/b"));
    }

    #[test]
    fn a_peer_is_its_address_however_it_is_written() {
        let at = |peer: &str| {
            let mut request = request(&[], "/");
            request.extensions_mut().insert(peer.parse::<SocketAddr>().expect("an address"));
            PeerKey.key(&request)
        };
        assert_eq!(at("192.0.2.7:1"), at("[::ffff:192.0.2.7]:2"));
        assert_ne!(at("192.0.2.7:1"), at("192.0.2.8:1"));
        assert_eq!(PeerKey.key(&request(&[], "/")), None);
        let mut tenant = request(&[], "/");
        tenant.extensions_mut().insert("acme");
        assert_eq!(ExtensionKey::<&str>::new().key(&tenant), of("acme"));
    }
}
