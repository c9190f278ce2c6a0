//! What a router's priority depends on: services, links, checks of one's own.

use std::collections::BTreeMap;

use thiserror::Error;

/// What becomes of a router when something that it tracks is down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Impact {
    /// It may not be master.
    Fault,
    /// This is taken off its priority while it is down.
    Minus(u8),
    /// This is added to its priority while it is up.
    Plus(u8),
}

/// Things that are up or down, and what follows for a priority.
///
/// # Examples
/// ```
/// use lvs::vrrp::{Impact, Tracks};
///
/// let mut tracks = Tracks::new(150);
/// tracks.insert("service web", Impact::Minus(60), true);
/// tracks.insert("link eth0", Impact::Fault, true);
/// tracks.set("service web", false)?;
/// assert_eq!((tracks.priority(), tracks.is_fault()), (90, false));
/// # Ok::<(), lvs::vrrp::UnknownTrack>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tracks {
    base: u8,
    tracks: BTreeMap<String, (Impact, bool)>,
}

/// Nothing of this name is tracked.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("nothing of the name {0:?} is tracked")]
pub struct UnknownTrack(pub String);

impl Tracks {
    /// Nothing yet, for a router of this priority.
    #[must_use]
    pub fn new(base: u8) -> Self {
        Self { base, tracks: BTreeMap::new() }
    }

    /// Tracks something, in place of what has that name.
    pub fn insert(&mut self, name: impl Into<String>, impact: Impact, is_up: bool) {
        self.tracks.insert(name.into(), (impact, is_up));
    }

    /// Tracks something no longer; `true` if it was.
    pub fn remove(&mut self, name: &str) -> bool {
        self.tracks.remove(name).is_some()
    }

    /// Says whether something is up; `true` if that is news.
    ///
    /// # Errors
    /// [`UnknownTrack`] if nothing has that name.
    pub fn set(&mut self, name: &str, is_up: bool) -> Result<bool, UnknownTrack> {
        let track = self.tracks.get_mut(name).ok_or_else(|| UnknownTrack(name.to_owned()))?;
        Ok(std::mem::replace(&mut track.1, is_up) != is_up)
    }

    /// What is tracked, and whether it is up.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.tracks.iter().map(|(name, (_, is_up))| (name.as_str(), *is_up))
    }

    /// The priority that follows: from 1 to 254; that of an owner, 255, stays.
    #[must_use]
    pub fn priority(&self) -> u8 {
        if self.base == 255 {
            return self.base;
        }
        let sum = self.tracks.values().fold(i64::from(self.base), |sum, track| match *track {
            (Impact::Minus(weight), false) => sum - i64::from(weight),
            (Impact::Plus(weight), true) => sum + i64::from(weight),
            _ => sum,
        });
        sum.clamp(1, 254) as u8
    }

    /// Is something down without which the router may not be master?
    #[must_use]
    pub fn is_fault(&self) -> bool {
        self.tracks.values().any(|track| *track == (Impact::Fault, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_within_bounds_and_an_owner_is_above_them() {
        let mut tracks = Tracks::new(100);
        tracks.insert("a", Impact::Minus(200), true);
        tracks.insert("b", Impact::Plus(200), false);
        assert_eq!(tracks.priority(), 100);
        tracks.set("a", false).expect("tracked");
        assert_eq!(tracks.priority(), 1);
        tracks.set("a", true).expect("tracked");
        tracks.set("b", true).expect("tracked");
        assert_eq!(tracks.priority(), 254);
        tracks.base = 255;
        assert_eq!(tracks.priority(), 255);
        tracks.base = 100;
        assert!(tracks.remove("b") && !tracks.remove("b"));
        assert_eq!(tracks.priority(), 100);
        assert_eq!(tracks.set("c", true), Err(UnknownTrack("c".into())));
    }
}
