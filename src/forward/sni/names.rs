//! From the name that a client asks for to what serves it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use thiserror::Error;

use super::{NameError, name};

/// The most patterns in one table.
pub const MAX_NAMES: usize = 65_536;

/// A table from server names to values, such as the services behind one address.
///
/// A pattern is a name (`www.example.org`) or stands for all names with one more label in front
/// (`*.example.org`: `www.example.org`, but neither `example.org` nor `a.b.example.org`), as in
/// certificates (RFC 6125 section 6.4.3; a star within a label is refused). The name itself is
/// preferred to the star, and the star to the value [for all others](Names::or). Upper and
/// lower case are the same.
///
/// A look-up costs one or two hashes of the name, and allocates if it has capital letters in it,
/// which the names of [`ClientHello`](super::ClientHello) have not.
///
/// # Examples
/// ```
/// use lvs::forward::sni::Names;
///
/// let table = Names::new().with("example.org", 1)?.with("*.example.org", 2)?.or(3);
/// assert_eq!(table.get(Some("example.org")), Some(&1));
/// assert_eq!(table.get(Some("www.example.org")), Some(&2));
/// assert_eq!(table.get(Some("a.b.example.org")), Some(&3));
/// assert_eq!(table.get(None), Some(&3));
/// # Ok::<(), lvs::forward::sni::NamesError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Names<V> {
    exact: HashMap<Box<str>, V>,
    /// By what stands behind the star and its dot.
    starred: HashMap<Box<str>, V>,
    other: Option<V>,
}

/// Why a pattern was refused. The table is as it was before.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum NamesError {
    /// It is neither a name nor a star in front of one.
    #[error("{pattern:?} is no name and no pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The same is in the table already.
    #[error("{pattern:?} is in the table already")]
    Duplicate {
        /// The pattern.
        pattern: String,
    },
    /// The table holds [`MAX_NAMES`] already.
    #[error("{pattern:?} does not fit: the table holds {MAX_NAMES} already")]
    Full {
        /// The pattern that found no place.
        pattern: String,
    },
}

impl<V> Default for Names<V> {
    fn default() -> Self {
        Self { exact: HashMap::new(), starred: HashMap::new(), other: None }
    }
}

impl<V> Names<V> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pattern, as [`Names::insert`] does, for tables made in one piece.
    ///
    /// # Errors
    /// As [`Names::insert`].
    pub fn with(mut self, pattern: &str, value: V) -> Result<Self, NamesError> {
        self.insert(pattern, value)?;
        Ok(self)
    }

    /// What all other clients get, also those that ask for no name. Default: nothing.
    #[must_use]
    pub fn or(mut self, value: V) -> Self {
        self.other = Some(value);
        self
    }

    /// Adds a name, or a star and a name.
    ///
    /// # Errors
    /// [`NamesError`] if it is no pattern, there already, or one too many.
    pub fn insert(&mut self, pattern: &str, value: V) -> Result<(), NamesError> {
        let full = self.len() >= MAX_NAMES;
        let (table, rest) = match pattern.strip_prefix("*.") {
            Some(rest) => (&mut self.starred, rest),
            None => (&mut self.exact, pattern),
        };
        let pattern = || pattern.to_owned();
        let name = name::host(rest.as_bytes())
            .map_err(|source| NamesError::Pattern { pattern: pattern(), source })?;
        match table.entry(name) {
            Entry::Occupied(_) => Err(NamesError::Duplicate { pattern: pattern() }),
            Entry::Vacant(_) if full => Err(NamesError::Full { pattern: pattern() }),
            Entry::Vacant(place) => {
                place.insert(value);
                Ok(())
            }
        }
    }

    /// What a client gets that asks for this name, or for none.
    #[must_use]
    pub fn get(&self, name: Option<&str>) -> Option<&V> {
        name.and_then(|name| self.find(name)).or(self.other.as_ref())
    }

    fn find(&self, name: &str) -> Option<&V> {
        let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        self.exact.get(&*name).or_else(|| {
            let (label, rest) = name.split_once('.')?;
            if label.is_empty() { None } else { self.starred.get(rest) }
        })
    }

    /// Whatever names stand for.
    pub(in crate::forward) fn values(&self) -> impl Iterator<Item = &V> {
        self.exact.values().chain(self.starred.values()).chain(&self.other)
    }

    /// How many patterns there are, without the value for all others.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.starred.len()
    }

    /// Tells whether there are no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
