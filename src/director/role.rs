//! The director's role: active, which has the virtual addresses, or standby.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::vrrp::{Vrrp, VrrpStatus};

/// Who has the virtual addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DirectorRole {
    /// This director: it is master, or its configuration has no `[vrrp]` table.
    Active,
    /// The other director, or none.
    Standby,
}

#[derive(Debug)]
struct RoleState {
    role: DirectorRole,
    /// How often the role changed to active. A reader of a `watch` may miss two changes of the role that
    /// follow each other closely, but sees that this number has changed.
    takeovers: u64,
    vrrp: Option<Arc<Vrrp>>,
}

/// Changes the role. A clone changes the same role.
#[derive(Clone, Debug)]
pub(super) struct RoleSender(Arc<watch::Sender<RoleState>>);

/// Reads the role, and waits for its changes.
#[derive(Clone, Debug)]
pub(super) struct RoleWatch(watch::Receiver<RoleState>);

impl RoleSender {
    /// Returns both ends of the role of a director without an election, which is active.
    pub(super) fn new() -> (Self, RoleWatch) {
        let state = RoleState { role: DirectorRole::Active, takeovers: 0, vrrp: None };
        let (sender, receiver) = watch::channel(state);
        (Self(Arc::new(sender)), RoleWatch(receiver))
    }

    /// Returns a reader of the role.
    pub(super) fn watch(&self) -> RoleWatch {
        RoleWatch(self.0.subscribe())
    }

    /// Sets the role of a director that takes part in no election.
    pub(super) fn set_without_vrrp(&self, role: DirectorRole) {
        self.0.send_if_modified(|state| {
            state.vrrp = None;
            state.change_role(role)
        });
    }

    /// Sets the election that decides the role from now on; the role is standby until it does.
    pub(super) fn set_vrrp(&self, vrrp: &Arc<Vrrp>) {
        self.0.send_modify(|state| {
            state.vrrp = Some(Arc::clone(vrrp));
            state.change_role(DirectorRole::Standby);
        });
    }

    /// Sets the role by an election. A result of an earlier election is ignored.
    pub(super) fn set_by_vrrp(&self, vrrp: &Weak<Vrrp>, role: DirectorRole) {
        self.0.send_if_modified(|state| {
            let is_current =
                state.vrrp.as_ref().is_some_and(|current| Arc::as_ptr(current) == vrrp.as_ptr());
            is_current && state.change_role(role)
        });
    }
}

impl RoleState {
    fn change_role(&mut self, role: DirectorRole) -> bool {
        let is_changed = self.role != role;
        self.role = role;
        self.takeovers += u64::from(is_changed && role == DirectorRole::Active);
        is_changed
    }
}

impl RoleWatch {
    pub(super) fn is_active(&self) -> bool {
        self.0.borrow().role == DirectorRole::Active
    }

    /// Returns the role, and how often it became active, of one moment.
    pub(super) fn role_and_takeovers(&self) -> (DirectorRole, u64) {
        let state = self.0.borrow();
        (state.role, state.takeovers)
    }

    /// Waits for the next change. Returns `false` if there will be none: the director has ended.
    ///
    /// # Cancel safety
    /// Dropped, it misses nothing: the next call returns at once.
    pub(super) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    pub(super) fn vrrp(&self) -> Option<Arc<Vrrp>> {
        self.0.borrow().vrrp.clone()
    }

    /// Returns the state of the election; it waits for the election's thread, for a second at most.
    pub(super) fn vrrp_status(&self) -> Option<VrrpStatus> {
        // The lock of `borrow` must not be held meanwhile.
        self.vrrp()?.status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takeovers_count_changes_to_active_only() {
        let (sender, role) = RoleSender::new();
        assert_eq!(role.role_and_takeovers(), (DirectorRole::Active, 0));
        for (new, takeovers) in [
            (DirectorRole::Active, 0),
            (DirectorRole::Standby, 0),
            (DirectorRole::Active, 1),
            (DirectorRole::Active, 1),
            (DirectorRole::Standby, 1),
            (DirectorRole::Active, 2),
        ] {
            sender.set_without_vrrp(new);
            assert_eq!(role.role_and_takeovers(), (new, takeovers));
        }
        // Without an election, the result of an earlier one is ignored.
        sender.set_by_vrrp(&Weak::new(), DirectorRole::Standby);
        assert!(role.is_active());
    }
}
