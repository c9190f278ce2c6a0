//! The items that a router's priority depends on: services, links, checks.

use std::collections::BTreeMap;

use thiserror::Error;

use super::config::OWNER_PRIORITY;

/// The interface's link.
#[cfg(any(target_os = "linux", feature = "director"))]
pub(super) const LINK_TRACK: &str = "link";
/// The address that advertisements are sent from.
#[cfg(any(target_os = "linux", feature = "director"))]
pub(super) const SOURCE_TRACK: &str = "source address";
/// The virtual addresses, which the kernel may refuse.
#[cfg(any(target_os = "linux", feature = "director"))]
pub(super) const ADDRESSES_TRACK: &str = "virtual addresses";
/// The tracked items of every virtual router.
#[cfg(any(target_os = "linux", feature = "director"))]
pub(crate) const BUILT_IN_TRACKS: [&str; 3] = [LINK_TRACK, SOURCE_TRACK, ADDRESSES_TRACK];

/// How a tracked item changes a router's priority.
#[derive(Clone, Copy, Debug, serde::Deserialize, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TrackEffect {
    /// The router cannot be master while the item is down.
    Fault,
    /// The number is subtracted from the priority while the item is down.
    Minus(u8),
    /// The number is added to the priority while the item is up.
    Plus(u8),
}

/// The tracked items of a router, each up or down, and the priority that results.
///
/// # Examples
/// ```
/// use lvs::vrrp::{TrackEffect, TrackedItems};
///
/// let mut tracks = TrackedItems::new(150);
/// tracks.insert("service web", TrackEffect::Minus(60), true);
/// tracks.insert("link eth0", TrackEffect::Fault, true);
/// tracks.set("service web", false)?;
/// assert_eq!((tracks.priority(), tracks.has_fault()), (90, false));
/// # Ok::<(), lvs::vrrp::UnknownTrack>(())
/// ```
#[derive(Clone, Debug)]
pub struct TrackedItems {
    base_priority: u8,
    items: BTreeMap<String, TrackedItem>,
}

#[derive(Clone, Copy, Debug)]
struct TrackedItem {
    effect: TrackEffect,
    is_up: bool,
}

/// The error for a name that no tracked item has.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("there is no tracked item {0:?}")]
pub struct UnknownTrack(pub String);

impl TrackedItems {
    /// Creates an empty set for a router of this priority.
    #[must_use]
    pub fn new(base_priority: u8) -> Self {
        Self { base_priority, items: BTreeMap::new() }
    }

    /// Changes the priority that the items change.
    pub fn set_base_priority(&mut self, base_priority: u8) {
        self.base_priority = base_priority;
    }

    /// Returns whether an item is up; `None` if there is none of that name.
    #[must_use]
    pub fn is_up(&self, name: &str) -> Option<bool> {
        self.items.get(name).map(|item| item.is_up)
    }

    /// Inserts an item, in place of the item with that name.
    pub fn insert(&mut self, name: impl Into<String>, effect: TrackEffect, is_up: bool) {
        self.items.insert(name.into(), TrackedItem { effect, is_up });
    }

    /// Removes an item; returns `true` if there was one of that name.
    pub fn remove(&mut self, name: &str) -> bool {
        self.items.remove(name).is_some()
    }

    /// Sets whether an item is up; returns `true` if that changes it.
    ///
    /// # Errors
    /// [`UnknownTrack`] if no item has that name.
    pub fn set(&mut self, name: &str, is_up: bool) -> Result<bool, UnknownTrack> {
        let item = self.items.get_mut(name).ok_or_else(|| UnknownTrack(name.to_owned()))?;
        Ok(std::mem::replace(&mut item.is_up, is_up) != is_up)
    }

    /// Returns each item's name, and whether the item is up.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.items.iter().map(|(name, item)| (name.as_str(), item.is_up))
    }

    /// Returns the resulting priority, limited to 1 to 254; an owner's priority, 255, does not change.
    #[must_use]
    pub fn priority(&self) -> u8 {
        if self.base_priority == OWNER_PRIORITY {
            return self.base_priority;
        }
        let sum = self.items.values().fold(i64::from(self.base_priority), |sum, item| {
            match (item.effect, item.is_up) {
                (TrackEffect::Minus(weight), false) => sum - i64::from(weight),
                (TrackEffect::Plus(weight), true) => sum + i64::from(weight),
                _ => sum,
            }
        });
        sum.clamp(1, 254) as u8
    }

    /// Returns the name of the first item with [`TrackEffect::Fault`] that is down.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        let mut items = self.items.iter();
        items
            .find(|(_, item)| item.effect == TrackEffect::Fault && !item.is_up)
            .map(|(name, _)| name.as_str())
    }

    /// Tells whether an item with [`TrackEffect::Fault`] is down.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.fault().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_within_1_to_254_and_an_owner_keeps_255() {
        let mut tracks = TrackedItems::new(100);
        tracks.insert("a", TrackEffect::Minus(200), true);
        tracks.insert("b", TrackEffect::Plus(200), false);
        assert_eq!(tracks.priority(), 100);
        tracks.set("a", false).expect("the item is tracked");
        assert_eq!(tracks.priority(), 1);
        tracks.set("a", true).expect("the item is tracked");
        tracks.set("b", true).expect("the item is tracked");
        assert_eq!(tracks.priority(), 254);
        tracks.base_priority = 255;
        assert_eq!(tracks.priority(), 255);
        tracks.base_priority = 100;
        assert!(tracks.remove("b") && !tracks.remove("b"));
        assert_eq!(tracks.priority(), 100);
        assert_eq!(tracks.set("c", true), Err(UnknownTrack("c".into())));
    }

    #[test]
    fn a_fault_names_the_item_that_is_down() {
        let mut tracks = TrackedItems::new(100);
        tracks.insert("link", TrackEffect::Fault, true);
        tracks.insert("web", TrackEffect::Minus(9), false);
        assert_eq!(tracks.fault(), None);
        tracks.set("link", false).expect("the item is tracked");
        assert_eq!((tracks.fault(), tracks.has_fault()), (Some("link"), true));
    }
}
