//! The stable name of a backend.

use std::borrow::Borrow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Names a backend for as long as it is configured; weight, address and state change under it.
///
/// Hash schedulers place a backend by this name, so two directors that use the same names send the
/// same key to the same server. A clone is one reference count.
///
/// # Examples
/// ```
/// use lvs::BackendId;
///
/// let id = BackendId::from("web-1");
/// assert_eq!(id.as_str(), "web-1");
///
/// let counts = std::collections::HashMap::from([(id, 7)]);
/// assert_eq!(counts.get("web-1"), Some(&7));
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(Arc<str>);

impl BackendId {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A map by name can be asked with a `&str`.
impl Borrow<str> for BackendId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for BackendId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// As its text.
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl serde::Serialize for BackendId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// From its text.
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl<'de> serde::Deserialize<'de> for BackendId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl From<&str> for BackendId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for BackendId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<SocketAddr> for BackendId {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl From<&BackendId> for BackendId {
    fn from(id: &BackendId) -> Self {
        id.clone()
    }
}

#[cfg(all(test, feature = "serde", not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn serde_sees_the_text() {
        let id = BackendId::from("web-1");
        let text = serde_json::to_string(&id).expect("a text");
        assert_eq!(text, "\"web-1\"");
        assert_eq!(serde_json::from_str::<BackendId>(&text).expect("a name"), id);
    }
}
