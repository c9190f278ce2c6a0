//! What a router's priority depends on: services, links, checks of one's own.

use std::collections::BTreeMap;

use thiserror::Error;

/// What becomes of a router when something that it tracks is down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TrackEffect {
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
/// use lvs::vrrp::{TrackEffect, TrackedItems};
///
/// let mut tracks = TrackedItems::new(150);
/// tracks.insert("service web", Impact::Minus(60), true);
/// tracks.insert("link eth0", Impact::Fault, true);
/// tracks.set("service web", false)?;
/// assert_eq!((tracks.priority(), tracks.has_fault()), (90, false));
/// # Ok::<(), lvs::vrrp::UnknownTrack>(())
/// ```
#[derive(Clone, Debug)]
pub struct TrackedItems {
    base_priority: u8,
    items: BTreeMap<String, (TrackEffect, bool)>,
}

/// Nothing of this name is tracked.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("nothing of the name {0:?} is tracked")]
pub struct UnknownTrack(pub String);

impl TrackedItems {
    /// Nothing yet, for a router of this priority.
    #[must_use]
    pub fn new(base: u8) -> Self {
        Self { base_priority: base, items: BTreeMap::new() }
    }

    /// Tracks something, in place of what has that name.
    pub fn insert(&mut self, name: impl Into<String>, impact: TrackEffect, is_up: bool) {
        self.items.insert(name.into(), (impact, is_up));
    }

    /// Tracks something no longer; `true` if it was.
    pub fn remove(&mut self, name: &str) -> bool {
        self.items.remove(name).is_some()
    }

    /// Says whether something is up; `true` if that is news.
    ///
    /// # Errors
    /// [`UnknownTrack`] if nothing has that name.
    pub fn set(&mut self, name: &str, is_up: bool) -> Result<bool, UnknownTrack> {
        let track = self.items.get_mut(name).ok_or_else(|| UnknownTrack(name.to_owned()))?;
        Ok(std::mem::replace(&mut track.1, is_up) != is_up)
    }

    /// What is tracked, and whether it is up.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.items.iter().map(|(name, (_, is_up))| (name.as_str(), *is_up))
    }

    /// The priority that follows: from 1 to 254; that of an owner, 255, stays.
    #[must_use]
    pub fn priority(&self) -> u8 {
        if self.base_priority == 255 {
            return self.base_priority;
        }
        let sum =
            self.items.values().fold(i64::from(self.base_priority), |sum, track| match *track {
                (TrackEffect::Minus(weight), false) => sum - i64::from(weight),
                (TrackEffect::Plus(weight), true) => sum + i64::from(weight),
                _ => sum,
            });
        sum.clamp(1, 254) as u8
    }

    /// Is something down without which the router may not be master?
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.items.values().any(|track| *track == (TrackEffect::Fault, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_within_bounds_and_an_owner_is_above_them() {
        let mut tracks = TrackedItems::new(100);
        tracks.insert("a", TrackEffect::Minus(200), true);
        tracks.insert("b", TrackEffect::Plus(200), false);
        assert_eq!(tracks.priority(), 100);
        tracks.set("a", false).expect("tracked");
        assert_eq!(tracks.priority(), 1);
        tracks.set("a", true).expect("tracked");
        tracks.set("b", true).expect("tracked");
        assert_eq!(tracks.priority(), 254);
        tracks.base_priority = 255;
        assert_eq!(tracks.priority(), 255);
        tracks.base_priority = 100;
        assert!(tracks.remove("b") && !tracks.remove("b"));
        assert_eq!(tracks.priority(), 100);
        assert_eq!(tracks.set("c", true), Err(UnknownTrack("c".into())));
    }
}
