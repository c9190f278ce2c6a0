//! Members from DNS.

mod answer;
mod error;
mod resolver;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use self::answer::SrvTarget;
use self::error::ResolveError;
pub use self::resolver::AddressFamilies;
use self::resolver::{DnsResolver, ResolverSettings};
use super::{DiscoveryError, MemberSource, MemberUpdate};
use crate::backend::Spec;
use crate::runtime::require_io;
use crate::setting::{SettingError, check_range};

/// The most targets of SRV records that are resolved at the same time.
const MAX_CONCURRENT_LOOKUPS: usize = 16;

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
/// keeps its members and [retries](super::Feed::retry), so DNS alone never removes the last member.
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
    next_refresh_at: Option<Instant>,
    /// The last addresses of the targets of SRV records, for targets whose lookup fails.
    last_addresses: HashMap<String, Vec<IpAddr>>,
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
    /// - Each address of a **target** is a member, with the record's port and whole weight. A target
    ///   that does not exist has no address. A target whose lookup fails keeps its last addresses; if
    ///   it had none, the target is left out, and a warning is logged. An address and port of
    ///   several records counts once, with the lowest priority and its largest weight.
    /// - A target of `.` says that the service is not available. That is a failure: no member is
    ///   removed.
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
            next_refresh_at: None,
            last_addresses: HashMap::new(),
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

    /// Sets the time limit of all lookups of one refresh together. Default: 10 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    async fn resolve_members(&mut self) -> Result<(Vec<Spec<SocketAddr>>, Duration), ResolveError> {
        let resolver = self.resolver_settings.build_resolver().await?;
        match self.query.clone() {
            DnsSourceQuery::Addresses { name, port } => {
                let found = resolver.lookup_addresses(&name).await?;
                Ok((answer::specs_from_addresses(&found.addresses, port), found.ttl))
            }
            DnsSourceQuery::Srv { name } => self.resolve_srv(&resolver, &name).await,
        }
    }

    async fn resolve_srv(
        &mut self,
        resolver: &DnsResolver,
        name: &str,
    ) -> Result<(Vec<Spec<SocketAddr>>, Duration), ResolveError> {
        let (records, mut ttl) = resolver.lookup_srv(name).await?;
        let mut names: Vec<String> = records.iter().map(|record| record.target.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let mut addresses = HashMap::new();
        let mut lookup_error = None;
        for chunk in names.chunks(MAX_CONCURRENT_LOOKUPS) {
            let mut lookups = JoinSet::new();
            for name in chunk {
                let (resolver, name) = (resolver.clone(), name.clone());
                lookups.spawn(async move {
                    let found = resolver.lookup_addresses(&name).await;
                    (name, found)
                });
            }
            while let Some(joined) = lookups.join_next().await {
                // Only the shutdown of the runtime ends such a task early.
                let Ok((target, found)) = joined else { continue };
                match found {
                    Ok(resolved) => {
                        ttl = ttl.min(resolved.ttl);
                        addresses.insert(target, resolved.addresses);
                    }
                    Err(error) if error.is_negative_answer() => {
                        warn!("discovery from {name}: SRV target {target} has no address: {error}");
                    }
                    Err(error) => {
                        warn!("discovery from {name}: cannot resolve SRV target {target}: {error}");
                        ttl = Duration::ZERO;
                        if let Some(last) = self.last_addresses.remove(&target) {
                            addresses.insert(target, last);
                        }
                        lookup_error = Some(error);
                    }
                }
            }
        }
        let targets: Vec<SrvTarget<'_>> = records
            .iter()
            .map(|record| {
                let addresses = addresses.get(&record.target).map_or(&[][..], Vec::as_slice);
                SrvTarget { record, addresses }
            })
            .collect();
        let specs = answer::specs_from_targets(&targets);
        if specs.is_empty() {
            return Err(lookup_error.unwrap_or(ResolveError::NoTargetAddress));
        }
        self.last_addresses = addresses;
        Ok((specs, ttl))
    }
}

impl MemberSource<SocketAddr> for DnsSource {
    async fn next(&mut self) -> Option<Result<MemberUpdate<SocketAddr>, DiscoveryError>> {
        if let Some(at) = self.next_refresh_at.take() {
            sleep_until(at).await;
        }
        if let Err(error) = require_io("a name server source") {
            return Some(Err(error.into()));
        }
        let limit = self.timeout;
        let answer = timeout(limit, self.resolve_members()).await;
        let answer = answer.unwrap_or(Err(ResolveError::Timeout(limit)));
        Some(match answer {
            Ok((specs, ttl)) => {
                let wait = ttl.clamp(self.min_refresh, self.max_refresh);
                self.next_refresh_at = Instant::now().checked_add(wait);
                Ok(MemberUpdate::All(specs))
            }
            Err(error) => Err(error.for_name(self.query.name())),
        })
    }

    fn name(&self) -> &str {
        self.query.name()
    }
}
