//! Members that never change.

use std::net::SocketAddr;
use std::str::FromStr;

use super::{DiscoveryError, MemberListError, MemberSource, MemberUpdate, member_list};
use crate::backend::Spec;

/// A source that reports a fixed list of members once, and ends.
///
/// The list comes from specs, or from [text](crate::discovery#the-text-form). A feed accepts an
/// empty list only with [`allow_empty`](super::Feed::allow_empty).
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::discovery::StaticList;
///
/// let list: StaticList<SocketAddr> = "
///     10.0.0.1:80  weight=3 name=web-1
///     10.0.0.2:80  max_connections=100   # an old machine
/// ".parse()?;
/// assert_eq!(list.members().len(), 2);
///
/// let error = "10.0.0.1:80 wait=3".parse::<StaticList<SocketAddr>>().unwrap_err();
/// assert_eq!((error.line, error.column), (1, 13));
/// # Ok::<(), lvs::discovery::MemberListError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StaticList<T> {
    members: Vec<Spec<T>>,
    delivered: bool,
}

impl<T> StaticList<T> {
    /// Makes a list of members.
    pub fn new<S: Into<Spec<T>>>(members: impl IntoIterator<Item = S>) -> Self {
        Self { members: members.into_iter().map(Into::into).collect(), delivered: false }
    }

    /// Returns the members; none after the list was reported.
    pub fn members(&self) -> &[Spec<T>] {
        &self.members
    }
}

impl FromStr for StaticList<SocketAddr> {
    type Err = MemberListError;

    fn from_str(text: &str) -> Result<Self, MemberListError> {
        Ok(Self { members: member_list::parse(text)?, delivered: false })
    }
}

impl<T: Send> MemberSource<T> for StaticList<T> {
    async fn next(&mut self) -> Option<Result<MemberUpdate<T>, DiscoveryError>> {
        if std::mem::replace(&mut self.delivered, true) {
            return None;
        }
        Some(Ok(MemberUpdate::All(std::mem::take(&mut self.members))))
    }

    fn name(&self) -> &str {
        "static"
    }
}
