//! Members from DNS.

mod answer;
mod error;
mod resolver;
mod targets;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::error::ResolveError;
pub use self::resolver::AddressFamilies;
use self::resolver::ResolverSettings;
use self::targets::{SrvTargets, TargetReport};
use super::{DiscoveryError, MemberSource, MemberUpdate};
use crate::backend::Spec;
use crate::runtime::require_io;
use crate::setting::{SettingError, check_range};

/// How long a refresh waits for the targets of SRV records before it reports those that are known.
const TARGET_GRACE: Duration = Duration::from_millis(250);

/// How long an answer without addresses holds, where it is accepted.
const EMPTY_ANSWER_TTL: Duration = Duration::from_secs(5);

/// A source that resolves a DNS name, again each time the answer expires.
///
/// The members are the [addresses](Self::addresses) of a host name, all with one port, or the
/// targets of the [SRV records](Self::srv) of a service. Members are named by address and port; an
/// address that stays keeps its counters, also when it moves to another name.
///
/// # Refresh
/// The name is resolved again when the lowest TTL of the answer has passed (aliases in the answer
/// count), at least [one second and at most one hour](Self::refresh_between) after the last answer.
/// Each refresh reads the resolver configuration of the system again, and `/etc/hosts`, whose names
/// never expire.
///
/// # Failures
/// Any answer without addresses is a failure: no answer within the [timeout](Self::timeout), an
/// error code, a name that does not exist (NXDOMAIN), a name without addresses (NODATA). The feed
/// keeps its members and [retries](super::Feed::retry), so DNS alone never removes the last member,
/// unless [an empty answer is accepted](Self::allow_empty).
/// With both [families](Self::families), a family without records is no failure, but a family
/// without an answer is a failure: it must not remove half of the members.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::discovery::{DnsSource, AddressFamilies};
///
/// let web = DnsSource::addresses("web.example.com", 8080)?.families(AddressFamilies::V4);
/// let api = DnsSource::srv("_api._tcp.example.com")?
///     .name_servers(["192.0.2.53:53".parse()?])
///     .refresh_between(Duration::from_secs(5), Duration::from_secs(60))?;
/// # let _ = (web, api);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DnsSource {
    resolver_settings: ResolverSettings,
    query: DnsSourceQuery,
    min_refresh: Duration,
    max_refresh: Duration,
    timeout: Duration,
    allow_empty: bool,
    next_refresh_at: Option<Instant>,
    targets: SrvTargets,
    /// Members of targets that are known, to be reported while the first lookups of others go on.
    known_members: VecDeque<Spec<SocketAddr>>,
}

#[derive(Clone, Debug)]
enum DnsSourceQuery {
    Addresses { name: String, port: u16 },
    Srv { name: String },
}

impl DnsSourceQuery {
    fn name(&self) -> &str {
        let (Self::Addresses { name, .. } | Self::Srv { name }) = self;
        name
    }
}

impl DnsSource {
    /// Makes a source of the A and AAAA addresses of a name, each with this port, weight 1 and tier
    /// 0.
    ///
    /// A name without a final dot is also looked up in the search domains of the system.
    ///
    /// # Errors
    /// [`DiscoveryError::Resolve`] if the name is not a valid DNS name.
    pub fn addresses(name: impl Into<String>, port: u16) -> Result<Self, DiscoveryError> {
        Self::new(DnsSourceQuery::Addresses { name: name.into(), port })
    }

    /// Makes a source of the targets of a service's SRV records ([RFC 2782]), such as
    /// `_http._tcp.example.com`.
    ///
    /// - **Priority** becomes the tier, for the `priority` scheduler: the lowest priority is tier 0,
    ///   the next higher is tier 1. Beyond 256 priorities, the highest share tier 255.
    /// - **Weight** stays the weight. But 0, which means "hardly ever" in DNS, becomes 1, because
    ///   weight 0 quiesces a member: one record of weight 0 beside others of sum `n` gets one
    ///   connection in `n + 1`, exactly as by the RFC's rule; records that all have weight 0 share
    ///   equally, likewise.
    /// - Each address of a **target** is a member, with the record's port and whole weight. Targets are
    ///   looked up independently: what is known of one is reported after 250 ms at most, and a lookup
    ///   that takes longer goes on. A target that does not exist has no address. A target whose lookup
    ///   fails keeps its last addresses; if it had none, the target is left out. Either is logged once.
    ///   An address and port of several records counts once, with the lowest priority and its largest
    ///   weight.
    /// - A target of `.` says that the service is not available. That is a failure: no member is
    ///   removed, unless [an empty answer is accepted](Self::allow_empty).
    /// - The name may be an alias (CNAME) of the name that has the records.
    ///
    /// [RFC 2782]: https://www.rfc-editor.org/rfc/rfc2782
    ///
    /// # Errors
    /// [`DiscoveryError::Resolve`] if the name is not a valid DNS name.
    pub fn srv(name: impl Into<String>) -> Result<Self, DiscoveryError> {
        Self::new(DnsSourceQuery::Srv { name: name.into() })
    }

    fn new(query: DnsSourceQuery) -> Result<Self, DiscoveryError> {
        resolver::check_name(query.name()).map_err(|error| error.for_name(query.name()))?;
        Ok(Self {
            resolver_settings: ResolverSettings::default(),
            query,
            min_refresh: Duration::from_secs(1),
            max_refresh: Duration::from_secs(3600),
            timeout: Duration::from_secs(10),
            allow_empty: false,
            next_refresh_at: None,
            targets: SrvTargets::new(),
            known_members: VecDeque::new(),
        })
    }

    /// Sets the name servers, which are asked by UDP, and by TCP if an answer is too long for UDP.
    /// Search domains and `/etc/hosts` are not used then. Default: the name servers of the system,
    /// from `/etc/resolv.conf`.
    #[must_use]
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.resolver_settings.servers = Some(servers.into_iter().collect());
        self
    }

    /// Sets the address families to look up. Default: both.
    #[must_use]
    pub fn families(mut self, families: AddressFamilies) -> Self {
        self.resolver_settings.families = families;
        self
    }

    /// Sets the least and the most time between an answer and the next lookup. Default: 1 s and 1 h.
    ///
    /// # Errors
    /// [`SettingError`] if `max` is below `min`.
    pub fn refresh_between(self, min: Duration, max: Duration) -> Result<Self, SettingError> {
        let max = check_range("refresh_between.max", max, min..)?;
        Ok(Self { min_refresh: min, max_refresh: max, ..self })
    }

    /// Sets the time limit of the lookup of the name, and of that of each target of SRV records.
    /// Default: 10 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Accepts an answer without addresses as an empty list: a name that does not exist or has no
    /// addresses, a service that is not available. Default: a failure. No answer is a failure always.
    ///
    /// The feed must [accept empty lists](super::Feed::allow_empty) too.
    #[must_use]
    pub fn allow_empty(self) -> Self {
        Self { allow_empty: true, ..self }
    }

    fn schedule_refresh(&mut self, ttl: Duration) {
        let wait = ttl.clamp(self.min_refresh, self.max_refresh);
        self.next_refresh_at = Instant::now().checked_add(wait);
    }

    /// Returns an empty list in place of an error that is an answer, if that is accepted.
    fn accept_empty(
        &mut self,
        error: ResolveError,
    ) -> Result<MemberUpdate<SocketAddr>, ResolveError> {
        if !self.allow_empty || !error.is_empty_answer() {
            return Err(error);
        }
        self.schedule_refresh(EMPTY_ANSWER_TTL);
        Ok(MemberUpdate::All(Vec::new()))
    }

    async fn next_addresses(
        &mut self,
        name: &str,
        port: u16,
    ) -> Result<MemberUpdate<SocketAddr>, ResolveError> {
        if let Some(at) = self.next_refresh_at.take() {
            sleep_until(at).await;
        }
        let lookup = async {
            let resolver = self.resolver_settings.build_resolver().await?;
            resolver.lookup_addresses(name).await
        };
        match timeout(self.timeout, lookup)
            .await
            .unwrap_or(Err(ResolveError::Timeout(self.timeout)))
        {
            Ok(found) => {
                self.schedule_refresh(found.ttl);
                Ok(MemberUpdate::All(answer::specs_from_addresses(&found.addresses, port)))
            }
            Err(error) => self.accept_empty(error),
        }
    }

    async fn next_srv(&mut self, name: &str) -> Result<MemberUpdate<SocketAddr>, ResolveError> {
        loop {
            // An insertion removes no member of a target that is not known yet.
            if let Some(spec) = self.known_members.pop_front() {
                return Ok(MemberUpdate::Insert(spec));
            }
            let next_refresh_at = self.next_refresh_at;
            let refresh = async {
                if let Some(at) = next_refresh_at {
                    sleep_until(at).await;
                }
            };
            tokio::select! {
                biased;
                () = refresh => if let Err(error) = self.refresh_srv(name).await {
                    return self.accept_empty(error);
                },
                () = self.targets.next_result(name), if self.targets.is_looking_up() => {}
            }
            match self.targets.report() {
                None => {}
                Some(TargetReport::Partial(specs)) => self.known_members = specs.into(),
                Some(TargetReport::Whole(specs)) if specs.is_empty() => {
                    self.next_refresh_at = None;
                    let error = self.targets.take_error();
                    return self.accept_empty(error);
                }
                Some(TargetReport::Whole(specs)) => return Ok(MemberUpdate::All(specs)),
            }
        }
    }

    /// Looks up the records, and their targets as far as they answer soon.
    async fn refresh_srv(&mut self, name: &str) -> Result<(), ResolveError> {
        self.next_refresh_at = None;
        let lookup = async {
            let resolver = self.resolver_settings.build_resolver().await?;
            let (records, ttl) = resolver.lookup_srv(name).await?;
            Ok((resolver, records, ttl))
        };
        let limit = self.timeout;
        let found = timeout(limit, lookup).await.unwrap_or(Err(ResolveError::Timeout(limit)));
        let (resolver, records, ttl) = found?;
        self.targets.look_up(records, &resolver, limit);
        let mut grace = pin!(sleep(TARGET_GRACE));
        while self.targets.is_looking_up() {
            tokio::select! {
                biased;
                () = self.targets.next_result(name) => {}
                () = &mut grace => break,
            }
        }
        self.schedule_refresh(ttl.min(self.targets.ttl()));
        Ok(())
    }
}

impl MemberSource<SocketAddr> for DnsSource {
    async fn next(&mut self) -> Option<Result<MemberUpdate<SocketAddr>, DiscoveryError>> {
        if let Err(error) = require_io("a name server source") {
            return Some(Err(error.into()));
        }
        let update = match self.query.clone() {
            DnsSourceQuery::Addresses { name, port } => self.next_addresses(&name, port).await,
            DnsSourceQuery::Srv { name } => self.next_srv(&name).await,
        };
        Some(update.map_err(|error| error.for_name(self.query.name())))
    }

    fn name(&self) -> &str {
        self.query.name()
    }
}
