//! Members from DNS.

mod answer;
mod resolver;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use self::answer::{ResolvedAddresses, SrvTarget};
use self::resolver::{DnsResolver, ResolverSettings};
use super::{DiscoveryError, MemberSource, MemberUpdate};
use crate::backend::Spec;

/// So many targets of SRV records are resolved at once.
const MAX_CONCURRENT_LOOKUPS: usize = 16;

/// A source that says what a name in DNS stands for, as often as the answer expires.
///
/// Two kinds of names: that of machines, whose [addresses](Self::lookup_addresses) are the members, all at
/// one port; and that of a [service](Self::lookup_srv), whose SRV records say more. Members are named by
/// address and port; an address that stays keeps its account, whatever becomes of the names.
///
/// # How often it asks
/// Again when the lowest TTL of the answer is over (aliases on the way count), but not
/// [sooner than a second and not later than an hour](Self::refresh_between) behind the last answer.
/// Each time the configuration of the system is read again, and `/etc/hosts`, whose names never
/// expire.
///
/// # What is a failure
/// All that is no list of addresses: no answer in [time](Self::timeout), an error code, a name that
/// does not exist (NXDOMAIN), one without addresses (NODATA). The feed keeps what it has and asks
/// again by its [own clock](super::Feed::retry). DNS alone therefore never takes out the last
/// member. With both [families](Self::families) asked for, one without records is no failure, but
/// one that is not answered is: half of the members must not leave because of it.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::discovery::{DnsSource, AddressFamilies};
///
/// let web = DnsSource::addresses("web.example.com", 8080)?.families(AddressFamilies::V4);
/// let api = DnsSource::srv("_api._tcp.example.com")?
///     .name_servers(["192.0.2.53:53".parse()?])
///     .refresh_between(Duration::from_secs(5), Duration::from_secs(60));
/// # let _ = (web, api);
/// # Ok::<(), Box<dyn std::error::ResolveError>>(())
/// ```
#[derive(Debug)]
pub struct DnsSource {
    resolver_settings: ResolverSettings,
    query: DnsSourceQuery,
    refresh_bounds: (Duration, Duration),
    timeout: Duration,
    next_refresh_at: Option<Instant>,
    /// What the targets of SRV records stood for at last, for those that cannot be asked for now.
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

/// Which addresses of a name are asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum AddressFamilies {
    /// IPv4 and IPv6. The default.
    #[default]
    Both,
    /// IPv4 (A) alone: also for name servers that never answer the other question.
    V4,
    /// IPv6 (AAAA) alone.
    V6,
}

impl DnsSource {
    /// The addresses of a name, A and AAAA, each with this port, weight 1 and tier 0.
    ///
    /// A name without a final dot is looked for in the system's search domains, too.
    ///
    /// # Errors
    /// [`DiscoveryError::ResolverSettings`] if it cannot be a name in DNS.
    pub fn addresses(name: impl Into<String>, port: u16) -> Result<Self, DiscoveryError> {
        Self::new(DnsSourceQuery::Addresses { name: name.into(), port })
    }

    /// The targets of a service's SRV records ([RFC 2782]), such as `_http._tcp.example.com`.
    ///
    /// - **Priority** becomes the tier, for the `priority` scheduler: the lowest is tier 0, the next
    ///   one that occurs tier 1. Beyond 256 priorities the last ones share tier 255.
    /// - **Weight** stays the weight. But 0, which means "hardly ever" in DNS, becomes 1, because 0
    ///   quiesces here: with one such record beside others of sum `n`, it gets one connection in
    ///   `n + 1`, exactly as by the RFC's rule; where all are 0 they share equally, likewise.
    /// - Each address of a **target** is a member, with the record's port and its whole weight. A
    ///   target that does not exist has none. One that cannot be asked for has those it had; if it
    ///   never had any it is left out for now, and logged. An address and port that several records
    ///   name counts once, by the lowest priority and the largest weight of that.
    /// - A target of `.` says that there is no such service. That is a failure: nobody leaves.
    ///
    /// [RFC 2782]: https://www.rfc-editor.org/rfc/rfc2782
    ///
    /// # Errors
    /// [`DiscoveryError::ResolverSettings`] if it cannot be a name in DNS.
    pub fn srv(name: impl Into<String>) -> Result<Self, DiscoveryError> {
        Self::new(DnsSourceQuery::Srv { name: name.into() })
    }

    fn new(question: DnsSourceQuery) -> Result<Self, DiscoveryError> {
        resolver::check_name(question.name())
            .map_err(|error| resolve_failure(question.name(), error))?;
        Ok(Self {
            resolver_settings: ResolverSettings::default(),
            query: question,
            refresh_bounds: (Duration::from_secs(1), Duration::from_secs(3600)),
            timeout: Duration::from_secs(10),
            next_refresh_at: None,
            last_addresses: HashMap::new(),
        })
    }

    /// Asks these name servers, by UDP, and by TCP where an answer is too long for that. Neither
    /// search domains nor `/etc/hosts` count then. Default: the system's, from `/etc/resolv.conf`.
    #[must_use]
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.resolver_settings.servers = Some(servers.into_iter().collect());
        self
    }

    /// Which addresses to ask for. Default: both.
    #[must_use]
    pub fn families(mut self, families: AddressFamilies) -> Self {
        self.resolver_settings.families = families;
        self
    }

    /// The least and the most time between an answer and the next question. Default: 1 s and 1 h.
    #[must_use]
    pub fn refresh_between(self, least: Duration, most: Duration) -> Self {
        Self { refresh_bounds: (least, most.max(least)), ..self }
    }

    /// How long all questions of one refresh may take together. Default: 10 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    async fn resolve_members(
        &mut self,
    ) -> Result<(Vec<Spec<SocketAddr>>, Duration), resolver::ResolveError> {
        let lookup = self.resolver_settings.build_resolver().await?;
        match self.query.clone() {
            DnsSourceQuery::Addresses { name, port } => {
                let found = lookup.lookup_addresses(&name).await?;
                Ok((answer::specs_from_addresses(&found.addresses, port), found.ttl))
            }
            DnsSourceQuery::Srv { name } => self.resolve_srv(&lookup, &name).await,
        }
    }

    async fn resolve_srv(
        &mut self,
        lookup: &DnsResolver,
        name: &str,
    ) -> Result<(Vec<Spec<SocketAddr>>, Duration), resolver::ResolveError> {
        let (records, mut ttl) = lookup.lookup_srv(name).await?;
        let mut names: Vec<String> = records.iter().map(|record| record.target.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let mut known = HashMap::new();
        let mut unasked = None;
        for chunk in names.chunks(MAX_CONCURRENT_LOOKUPS) {
            let mut asked = JoinSet::new();
            for name in chunk {
                let (lookup, name) = (lookup.clone(), name.clone());
                asked.spawn(async move {
                    let found = lookup.lookup_addresses(&name).await;
                    (name, found)
                });
            }
            while let Some(answered) = asked.join_next().await {
                // A task that did not end in order is one of a runtime that shuts down.
                let Ok((target, found)) = answered else { continue };
                match found {
                    Ok(ResolvedAddresses { addresses: list, ttl: one }) => {
                        ttl = ttl.min(one);
                        known.insert(target, list);
                    }
                    Err(error) if error.is_negative_answer() => {
                        warn!(%target, %error, "a target of an SRV record has no address");
                    }
                    Err(error) => {
                        warn!(%target, %error, "a target of an SRV record cannot be resolved");
                        ttl = Duration::ZERO;
                        if let Some(last) = self.last_addresses.remove(&target) {
                            known.insert(target, last);
                        }
                        unasked = Some(error);
                    }
                }
            }
        }
        let targets: Vec<SrvTarget<'_>> = records
            .iter()
            .map(|record| {
                let addresses = known.get(&record.target).map_or(&[][..], Vec::as_slice);
                SrvTarget { record, addresses }
            })
            .collect();
        let specs = answer::specs_from_targets(&targets);
        if specs.is_empty() {
            return Err(unasked.unwrap_or(resolver::ResolveError::NoTargetAddress));
        }
        self.last_addresses = known;
        Ok((specs, ttl))
    }
}

impl MemberSource<SocketAddr> for DnsSource {
    async fn next(&mut self) -> Option<Result<MemberUpdate<SocketAddr>, DiscoveryError>> {
        if let Some(at) = self.next_refresh_at.take() {
            sleep_until(at).await;
        }
        let within = self.timeout;
        let answer = timeout(within, self.resolve_members()).await;
        let answer = answer.unwrap_or(Err(resolver::ResolveError::Timeout(within)));
        Some(match answer {
            Ok((specs, ttl)) => {
                let (least, most) = self.refresh_bounds;
                self.next_refresh_at = Instant::now().checked_add(ttl.clamp(least, most));
                Ok(MemberUpdate::All(specs))
            }
            Err(error) => Err(resolve_failure(self.query.name(), error)),
        })
    }

    fn name(&self) -> &str {
        self.query.name()
    }
}

fn resolve_failure(name: &str, error: resolver::ResolveError) -> DiscoveryError {
    DiscoveryError::Resolve { name: name.to_owned(), source: Box::new(error) }
}
