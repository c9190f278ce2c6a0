//! Lookup of a value, such as a service, by the requested server name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use thiserror::Error;

use super::host_name::{self, HostNameError};

/// The maximum number of patterns in a table.
pub const MAX_SERVER_NAMES: usize = 65_536;

/// A table from server names to values, such as the services behind one address.
///
/// A pattern is an exact name (`www.example.org`) or a wildcard for all names with one more label
/// in front (`*.example.org` matches `www.example.org`, but neither `example.org` nor
/// `a.b.example.org`), as in certificates (RFC 6125 section 6.4.3; a wildcard within a label is
/// rejected). An exact name takes precedence over a wildcard, and a wildcard over the
/// [default](ServerNameTable::with_default). Case is ignored.
///
/// A lookup costs one or two hashes of the name. It allocates if the name has upper case letters,
/// which the names of [`ClientHello`](super::ClientHello) do not have.
///
/// # Examples
/// ```
/// use lvs::forward::sni::ServerNameTable;
///
/// let table = ServerNameTable::new()
///     .with_pattern("example.org", 1)?
///     .with_pattern("*.example.org", 2)?
///     .with_default(3);
/// assert_eq!(table.get(Some("example.org")), Some(&1));
/// assert_eq!(table.get(Some("www.example.org")), Some(&2));
/// assert_eq!(table.get(Some("a.b.example.org")), Some(&3));
/// assert_eq!(table.get(None), Some(&3));
/// # Ok::<(), lvs::forward::sni::ServerNameTableError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerNameTable<V> {
    exact: HashMap<Box<str>, V>,
    /// The key is the part after `*.`.
    wildcard: HashMap<Box<str>, V>,
    default: Option<V>,
}

/// The reason why a pattern is rejected. The table is unchanged.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ServerNameTableError {
    /// The pattern is neither a host name nor a wildcard.
    #[error("invalid server name pattern {pattern:?}: {source}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The reason.
        source: HostNameError,
    },
    /// The table contains the pattern already.
    #[error("server name pattern {pattern:?} occurs twice")]
    Duplicate {
        /// The pattern.
        pattern: String,
    },
    /// The table contains [`MAX_SERVER_NAMES`] patterns already.
    #[error(
        "cannot add server name pattern {pattern:?}: the table is full ({MAX_SERVER_NAMES} patterns)"
    )]
    Full {
        /// The pattern.
        pattern: String,
    },
}

impl<V> Default for ServerNameTable<V> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None }
    }
}

impl<V> ServerNameTable<V> {
    /// Returns an empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the table with one more pattern; see [`ServerNameTable::insert`].
    ///
    /// # Errors
    /// As [`ServerNameTable::insert`].
    pub fn with_pattern(mut self, pattern: &str, value: V) -> Result<Self, ServerNameTableError> {
        self.insert(pattern, value)?;
        Ok(self)
    }

    /// Returns the table with a value for clients that match no pattern or send no name. Default:
    /// no value.
    #[must_use]
    pub fn with_default(mut self, value: V) -> Self {
        self.default = Some(value);
        self
    }

    /// Adds an exact name or a wildcard.
    ///
    /// # Errors
    /// [`ServerNameTableError`] if the pattern is invalid or in the table already, or if the table
    /// is full.
    pub fn insert(&mut self, pattern: &str, value: V) -> Result<(), ServerNameTableError> {
        let is_full = self.len() >= MAX_SERVER_NAMES;
        let (table, rest) = match pattern.strip_prefix("*.") {
            Some(rest) => (&mut self.wildcard, rest),
            None => (&mut self.exact, pattern),
        };
        let pattern = || pattern.to_owned();
        let name = host_name::normalize_host_name(rest.as_bytes())
            .map_err(|source| ServerNameTableError::Pattern { pattern: pattern(), source })?;
        match table.entry(name) {
            Entry::Occupied(_) => Err(ServerNameTableError::Duplicate { pattern: pattern() }),
            Entry::Vacant(_) if is_full => Err(ServerNameTableError::Full { pattern: pattern() }),
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
        }
    }

    /// Returns the value for a client that requests this name, or no name.
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

    /// Iterates over the values of all patterns and the default.
    pub(in crate::forward) fn values(&self) -> impl Iterator<Item = &V> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.default)
    }

    /// Returns the number of patterns, without the default.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    /// Returns whether there are no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
