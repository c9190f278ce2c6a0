//! From the name that a client asks for to what serves it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use thiserror::Error;

use super::host_name::{self, HostNameError};

/// The most patterns in one table.
pub const MAX_SERVER_NAMES: usize = 65_536;

/// A table from server names to values, such as the services behind one address.
///
/// A pattern is a name (`www.example.org`) or stands for all names with one more label in front
/// (`*.example.org`: `www.example.org`, but neither `example.org` nor `a.b.example.org`), as in
/// certificates (RFC 6125 section 6.4.3; a star within a label is refused). The name itself is
/// preferred to the star, and the star to the value [for all others](ServerNameTable::with_default). Upper and
/// lower case are the same.
///
/// A look-up costs one or two hashes of the name, and allocates if it has capital letters in it,
/// which the names of [`ClientHello`](super::ClientHello) have not.
///
/// # Examples
/// ```
/// use lvs::forward::sni::ServerNameTable;
///
/// let table = ServerNameTable::new().with_pattern("example.org", 1)?.with_pattern("*.example.org", 2)?.with_default(3);
/// assert_eq!(table.get(Some("example.org")), Some(&1));
/// assert_eq!(table.get(Some("www.example.org")), Some(&2));
/// assert_eq!(table.get(Some("a.b.example.org")), Some(&3));
/// assert_eq!(table.get(None), Some(&3));
/// # Ok::<(), lvs::forward::sni::ServerNameTableError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerNameTable<V> {
    exact: HashMap<Box<str>, V>,
    /// By what stands behind the star and its dot.
    wildcard: HashMap<Box<str>, V>,
    default: Option<V>,
}

/// Why a pattern was refused. The table is as it was before.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ServerNameTableError {
    /// It is neither a name nor a star in front of one.
    #[error("{pattern:?} is no name and no pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: HostNameError,
    },
    /// The same is in the table already.
    #[error("{pattern:?} is in the table already")]
    Duplicate {
        /// The pattern.
        pattern: String,
    },
    /// The table holds [`MAX_SERVER_NAMES`] already.
    #[error("{pattern:?} does not fit: the table holds {MAX_SERVER_NAMES} already")]
    Full {
        /// The pattern that found no place.
        pattern: String,
    },
}

impl<V> Default for ServerNameTable<V> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None }
    }
}

impl<V> ServerNameTable<V> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pattern, as [`ServerNameTable::insert`] does, for tables made in one piece.
    ///
    /// # Errors
    /// As [`ServerNameTable::insert`].
    pub fn with_pattern(mut self, pattern: &str, value: V) -> Result<Self, ServerNameTableError> {
        self.insert(pattern, value)?;
        Ok(self)
    }

    /// What all other clients get, also those that ask for no name. Default: nothing.
    #[must_use]
    pub fn with_default(mut self, value: V) -> Self {
        self.default = Some(value);
        self
    }

    /// Adds a name, or a star and a name.
    ///
    /// # Errors
    /// [`ServerNameTableError`] if it is no pattern, there already, or one too many.
    pub fn insert(&mut self, pattern: &str, value: V) -> Result<(), ServerNameTableError> {
        let full = self.len() >= MAX_SERVER_NAMES;
        let (table, rest) = match pattern.strip_prefix("*.") {
            Some(rest) => (&mut self.wildcard, rest),
            None => (&mut self.exact, pattern),
        };
        let pattern = || pattern.to_owned();
        let name = host_name::normalize_host_name(rest.as_bytes())
            .map_err(|source| ServerNameTableError::Pattern { pattern: pattern(), source })?;
        match table.entry(name) {
            Entry::Occupied(_) => Err(ServerNameTableError::Duplicate { pattern: pattern() }),
            Entry::Vacant(_) if full => Err(ServerNameTableError::Full { pattern: pattern() }),
            Entry::Vacant(place) => {
                place.insert(value);
                Ok(())
            }
        }
    }

    /// What a client gets that asks for this name, or for none.
    #[must_use]
    pub fn get(&self, name: Option<&str>) -> Option<&V> {
        name.and_then(|name| self.find_match(name)).or(self.default.as_ref())
    }

    fn find_match(&self, name: &str) -> Option<&V> {
        let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        self.exact.get(&*name).or_else(|| {
            let (label, rest) = name.split_once('.')?;
            if label.is_empty() { None } else { self.wildcard.get(rest) }
        })
    }

    /// Whatever names stand for.
    pub(in crate::forward) fn values(&self) -> impl Iterator<Item = &V> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.default)
    }

    /// How many patterns there are, without the value for all others.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    /// Tells whether there are no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
