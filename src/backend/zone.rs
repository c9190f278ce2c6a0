//! Where a backend is.

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;
// The names are of the process, and no part of a model of loom.
use std::sync::{Arc, PoisonError, RwLock};

use crate::setting::SettingError;

/// The different names that a process may use.
const MAX_ZONES: usize = u8::MAX as usize;
/// The longest name, in bytes.
const MAX_NAME_LEN: usize = 64;

/// The name of a zone: a rack, a site, a region; whatever traffic should not leave without need.
///
/// The rule [`priority`](crate::scheduler::PriorityTiers::zone) prefers backends of one zone. Names are compared as they
/// are written. A zone takes one byte: the names of a process are in one table, which keeps them to its end. So that no
/// source of members fills it, a process uses at most 255 different names.
///
/// # Examples
/// ```
/// use lvs::backend::Zone;
///
/// let zone: Zone = "eu-1a".parse()?;
/// assert_eq!(zone, Zone::new("eu-1a")?);
/// assert_eq!(zone.to_string(), "eu-1a");
/// assert!(Zone::new("eu 1a").is_err());
/// # Ok::<(), lvs::SettingError>(())
/// ```
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct Zone(NonZeroU8);

static NAMES: RwLock<Vec<Arc<str>>> = RwLock::new(Vec::new());

impl Zone {
    /// Makes the zone of this name: 1 to 64 ASCII letters, digits, `.`, `_`, `-` and `/`.
    ///
    /// # Errors
    /// [`SettingError`] for another name, and for a name beyond 255 different ones.
    pub fn new(name: &str) -> Result<Self, SettingError> {
        let is_allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
        if !(1..=MAX_NAME_LEN).contains(&name.len()) || !name.bytes().all(is_allowed) {
            let excerpt: String = name.chars().take(MAX_NAME_LEN).collect();
            return Err(SettingError::new(
                "zone",
                excerpt,
                "a name of 1 to 64 ASCII letters, digits, `.`, `_`, `-` and `/`",
            ));
        }
        let find = |names: &[Arc<str>]| names.iter().position(|known| **known == *name);
        let known = find(&NAMES.read().unwrap_or_else(PoisonError::into_inner));
        let position = known.or_else(|| {
            let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have added it meanwhile.
            find(&names).or_else(|| {
                let has_room = names.len() < MAX_ZONES;
                has_room.then(|| names.push(name.into())).map(|()| names.len() - 1)
            })
        });
        let number = position.and_then(|position| u8::try_from(position + 1).ok());
        number.and_then(NonZeroU8::new).map(Self).ok_or_else(|| {
            let allowed = format!("one of the {MAX_ZONES} names that this process uses already");
            SettingError::new("zone", name, allowed)
        })
    }

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> Arc<str> {
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        // Names are added before there is a zone of them, and stay.
        names.get(usize::from(self.0.get()) - 1).map_or_else(|| "".into(), Arc::clone)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.name(), f)
    }
}

impl FromStr for Zone {
    type Err = SettingError;

    fn from_str(name: &str) -> Result<Self, SettingError> {
        Self::new(name)
    }
}

impl TryFrom<String> for Zone {
    type Error = SettingError;

    fn try_from(name: String) -> Result<Self, SettingError> {
        Self::new(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_string()
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_allowed_are_refused_and_take_no_place() {
        let used = || NAMES.read().expect("no panic").len();
        let before = used();
        for name in ["", " ", "a b", "a\n", "\u{e9}", &"x".repeat(65)] {
            let error = Zone::new(name).expect_err(name);
            assert!(error.to_string().starts_with("zone is "), "{error}");
        }
        // Other tests may have added some.
        assert!(used() - before < 16);
        assert_eq!(&*Zone::new("a").expect("a name").name(), "a");
    }
}
