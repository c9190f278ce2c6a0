//! The user that a program runs as: for health checks and notify commands.

use std::io;
use std::process::Command;

/// The user, and the group, that a program runs as; each a name or a number of this machine.
///
/// They are looked up at each start of the program, so that a user may be created after the
/// configuration is read. Only root may start programs as another user.
///
/// # Examples
/// ```
/// use lvs::ProgramUser;
///
/// let user = ProgramUser::new("nobody").group("nogroup");
/// # let _ = user;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct ProgramUser {
    user: String,
    group: Option<String>,
}

impl ProgramUser {
    /// Names the user. The group is the user's own, and there are no supplementary groups.
    pub fn new(user: impl Into<String>) -> Self {
        Self { user: user.into(), group: None }
    }

    /// Sets the group. Default: the user's own.
    pub fn group(self, group: impl Into<String>) -> Self {
        Self { group: Some(group.into()), ..self }
    }

    /// Makes a command run as the user.
    pub(crate) fn apply(&self, command: &mut Command) -> io::Result<()> {
        let (user, group) = self.ids()?;
        std::os::unix::process::CommandExt::uid(command, user);
        std::os::unix::process::CommandExt::gid(command, group);
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn ids(&self) -> io::Result<(u32, u32)> {
        use nix::unistd::{Gid, Group, Uid, User};

        let unknown = |kind: &str, name: &str| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no {kind} {name:?}"))
        };
        let user = match self.user.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number))?,
            Err(_) => User::from_name(&self.user)?,
        };
        let group = match &self.group {
            None => None,
            Some(name) => Some(match name.parse() {
                Ok(number) => Gid::from_raw(number),
                Err(_) => Group::from_name(name)?.ok_or_else(|| unknown("group", name))?.gid,
            }),
        };
        // A number needs no entry, if the group is given.
        match (user, self.user.parse(), group) {
            (Some(user), _, group) => Ok((user.uid.as_raw(), group.unwrap_or(user.gid).as_raw())),
            (None, Ok(number), Some(group)) => Ok((number, group.as_raw())),
            (None, _, _) => Err(unknown("user", &self.user)),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn ids(&self) -> io::Result<(u32, u32)> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_looked_up() {
        let ids = |user: ProgramUser| user.ids().map_err(|error| error.to_string());
        assert_eq!(ids(ProgramUser::new("root")), Ok((0, 0)));
        assert_eq!(ids(ProgramUser::new("0").group("root")), Ok((0, 0)));
        assert_eq!(ids(ProgramUser::new("4000000001").group("7")), Ok((4_000_000_001, 7)));
        let error = ids(ProgramUser::new("no-such-user")).expect_err("there is no such user");
        assert_eq!(error, "there is no user \"no-such-user\"");
        let error = ids(ProgramUser::new("root").group("no-such-group")).expect_err("no group");
        assert_eq!(error, "there is no group \"no-such-group\"");
    }
}
