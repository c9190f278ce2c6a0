//! A set with a running feed, and helpers that read them.

use std::net::SocketAddr;
pub(crate) use std::time::Duration;

pub(crate) use lvs::backend::{BackendAdminState, BackendState};
pub(crate) use lvs::discovery::{
    ChannelSource, DiscoveryError, Feed, FeedHandle, FeedState, FeedStatus, MemberSender,
    MemberSource, MemberUpdate, RemovalPolicy, channel,
};
pub(crate) use lvs::scheduler::RoundRobin;
pub(crate) use lvs::{BackendId, BackendSet, Balancer, Flow, Lease, Spec};
pub(crate) use tokio::time::sleep;

/// A time limit that no test reaches; the clock of most tests is paused and advances by itself.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Enough time for a feed to apply an update.
pub(crate) const MOMENT: Duration = Duration::from_millis(5);

pub(crate) type Target = &'static str;

/// A running feed of a channel.
pub(crate) struct World {
    pub(crate) set: BackendSet<Target>,
    pub(crate) members: MemberSender<Target>,
    pub(crate) feed: FeedHandle,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(BackendSet::new(), |feed| feed)
    }

    pub(crate) fn of(
        set: BackendSet<Target>,
        build: impl FnOnce(Feed<Target, ChannelSource<Target>>) -> Feed<Target, ChannelSource<Target>>,
    ) -> Self {
        let (members, source) = channel(64).expect("a capacity");
        let feed = build(Feed::new(&set, source));
        let handle = feed.handle();
        tokio::spawn(feed.run());
        Self { set, members, feed: handle }
    }

    /// Sends an update, and waits until the feed has applied it.
    pub(crate) async fn say(&self, update: MemberUpdate<Target>) {
        self.members.send(update).await.expect("the feed runs");
        sleep(MOMENT).await;
    }

    /// Sends a list of members with weights.
    pub(crate) async fn all(&self, members: &[(Target, u32)]) {
        self.say(MemberUpdate::All(
            members.iter().map(|&(name, weight)| member(name, weight)).collect(),
        ))
        .await;
    }

    pub(crate) async fn fail(&self) {
        self.members.send_error(DiscoveryError::other("the registry is down")).await;
        sleep(MOMENT).await;
    }

    pub(crate) fn shows(&self) -> Vec<String> {
        shows(&self.set)
    }

    pub(crate) fn status(&self) -> FeedStatus {
        self.feed.status()
    }
}

/// A member whose target is its name.
pub(crate) fn member(name: Target, weight: u32) -> Spec<Target> {
    Spec::new(name, name).weight(weight)
}

/// Returns the members sorted by name: `name weight`, and the state if it is not `eligible`.
pub(crate) fn shows<T>(set: &BackendSet<T>) -> Vec<String> {
    let snapshot = set.snapshot();
    let mut lines: Vec<String> = snapshot
        .members()
        .iter()
        .map(|member| match member.state() {
            BackendState::Eligible => format!("{} {}", member.id(), member.weight()),
            state => format!("{} {} {state}", member.id(), member.weight()),
        })
        .collect();
    lines.sort();
    lines
}

pub(crate) fn serial<T>(set: &BackendSet<T>, name: &str) -> u64 {
    let snapshot = set.snapshot();
    let found = snapshot.members().iter().find(|member| member.id().as_str() == name);
    found.map(|member| member.serial()).expect("a member of this name")
}

/// Holds a connection to each eligible member.
pub(crate) fn occupy(set: &BackendSet<Target>) -> Vec<Lease<Target>> {
    let balancer = Balancer::new(set, RoundRobin::new()).expect("rr takes any set");
    let count =
        set.snapshot().members().iter().filter(|m| m.state() == BackendState::Eligible).count();
    (0..count).map(|_| balancer.pick(&Flow::new()).expect("an eligible member")).collect()
}

/// Waits until the set shows these members.
pub(crate) async fn becomes(set: &BackendSet<SocketAddr>, expected: &[&str]) {
    let mut seen = Vec::new();
    for _ in 0..LONG.as_millis() / 20 {
        seen = shows(set);
        if seen == expected {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("expected members {expected:?}, the set has {seen:?}");
}

/// Waits for a status of the feed.
pub(crate) async fn until(
    feed: &mut FeedHandle,
    condition: impl Fn(&FeedStatus) -> bool,
) -> FeedStatus {
    let wait = async {
        loop {
            let status = feed.status();
            if condition(&status) {
                return status;
            }
            feed.changed().await.expect("the feed goes on");
        }
    };
    match tokio::time::timeout(LONG, wait).await {
        Ok(status) => status,
        Err(_) => panic!("the feed does not reach the status: {:#?}", feed.status()),
    }
}

/// A temporary folder, removed on drop.
#[derive(Debug)]
pub(crate) struct Folder(std::path::PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lvs-discovery-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a writable folder");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
