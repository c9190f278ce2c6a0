//! DNS lookups with hickory's resolver.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::task::spawn_blocking;

use super::answer::{ResolvedAddresses, SrvRecord};
use super::error::ResolveError;

/// The address families that are looked up for a name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum AddressFamilies {
    /// IPv4 and IPv6. The default.
    #[default]
    Both,
    /// IPv4 (A) only: also for name servers that never answer a query for AAAA.
    V4,
    /// IPv6 (AAAA) only.
    V6,
}

/// Checks that a text is a valid DNS name.
pub(super) fn check_name(name: &str) -> Result<(), ResolveError> {
    if name.is_empty() {
        return Err(ResolveError::InvalidName("the name is empty".to_owned()));
    }
    Name::from_utf8(name).map(drop).map_err(|error| {
        ResolveError::InvalidName(match name.contains("..") {
            // The parser's text ends with the label, which is empty.
            true => "it has an empty label".to_owned(),
            false => error.to_string(),
        })
    })
}

/// The name servers and address families of the lookups.
#[derive(Debug, Default)]
pub(super) struct ResolverSettings {
    /// The name servers; `None` are those of the system.
    pub(super) servers: Option<Vec<SocketAddr>>,
    pub(super) families: AddressFamilies,
}

/// A resolver for the lookups of one refresh.
///
/// Each refresh makes a new resolver, which reads the configuration of the system again and has no
/// cached answers, connections or server statistics of an earlier refresh.
#[derive(Clone, Debug)]
pub(super) struct DnsResolver {
    resolver: TokioResolver,
    families: AddressFamilies,
}

impl ResolverSettings {
    pub(super) async fn build_resolver(&self) -> Result<DnsResolver, ResolveError> {
        let families = self.families;
        let resolver = match &self.servers {
            Some(servers) => resolver_with_servers(servers).map_err(ResolveError::Net)?,
            None => {
                // The builder reads files, which blocks.
                let system = || TokioResolver::builder_tokio()?.build();
                match spawn_blocking(system).await {
                    Ok(resolver) => resolver.map_err(ResolveError::SystemConfig)?,
                    Err(_) => {
                        return Err(ResolveError::SystemConfig(NetError::from(
                            "the runtime shuts down",
                        )));
                    }
                }
            }
        };
        Ok(DnsResolver { resolver, families })
    }
}

fn resolver_with_servers(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let server = |address: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut config| {
            config.port = address.port();
            config
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    };
    let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = Duration::from_secs(2);
    *builder.options_mut() = options;
    builder.build()
}

impl DnsResolver {
    /// Looks up the addresses of a name.
    ///
    /// # Errors
    /// A family without records is an error only if the other family has none either.
    pub(super) async fn lookup_addresses(
        &self,
        name: &str,
    ) -> Result<ResolvedAddresses, ResolveError> {
        // hickory would look up an address in place of the name as a name.
        if let Ok(address) = name.trim_end_matches('.').parse::<IpAddr>() {
            return Ok(ResolvedAddresses { addresses: vec![address], ttl: Duration::MAX });
        }
        let (v4, v6) = match self.families {
            AddressFamilies::V4 => return self.lookup_family(name, RecordType::A, "A").await,
            AddressFamilies::V6 => return self.lookup_family(name, RecordType::AAAA, "AAAA").await,
            AddressFamilies::Both => tokio::join!(
                self.lookup_family(name, RecordType::A, "A"),
                self.lookup_family(name, RecordType::AAAA, "AAAA"),
            ),
        };
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.addresses.extend(v6.addresses);
                Ok(ResolvedAddresses { ttl: v4.ttl.min(v6.ttl), ..v4 })
            }
            (Ok(found), Err(error)) | (Err(error), Ok(found)) if error.is_negative_answer() => {
                Ok(found)
            }
            (Err(ResolveError::NoData(_)), Err(ResolveError::NoData(_))) => {
                Err(ResolveError::NoData("A or AAAA"))
            }
            (Err(v4), Err(v6)) if v4.is_negative_answer() => Err(v6),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    async fn lookup_family(
        &self,
        name: &str,
        record_type: RecordType,
        type_name: &'static str,
    ) -> Result<ResolvedAddresses, ResolveError> {
        let found = self.resolver.lookup(name, record_type).await;
        let found = found.map_err(|error| ResolveError::from_net_error(error, type_name))?;
        let addresses: Vec<IpAddr> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(a) => Some(IpAddr::V6(a.0)),
                _ => None,
            })
            .collect();
        if addresses.is_empty() {
            return Err(ResolveError::NoData(type_name));
        }
        let ttl = lowest_ttl(found.answers().iter().map(|record| record.ttl));
        Ok(ResolvedAddresses { addresses, ttl })
    }

    /// Looks up the SRV records of a service; returns the records and their lowest TTL.
    pub(super) async fn lookup_srv(
        &self,
        name: &str,
    ) -> Result<(Vec<SrvRecord>, Duration), ResolveError> {
        let (found, alias_ttl) = self.lookup_srv_of_alias(name).await?;
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_utf8(),
            }),
            _ => None,
        });
        let mut records: Vec<SrvRecord> = records.collect();
        if records.is_empty() {
            return Err(ResolveError::NoData("SRV"));
        }
        records.retain(|record| record.target != ".");
        if records.is_empty() {
            return Err(ResolveError::NoService);
        }
        let ttl = lowest_ttl(found.answers().iter().map(|record| record.ttl));
        Ok((records, ttl.min(alias_ttl)))
    }

    /// Looks up SRV records, and follows aliases, which hickory does not for this type: it takes the
    /// target of a record for the next name. Returns the lowest TTL of the aliases too.
    async fn lookup_srv_of_alias(&self, name: &str) -> Result<(Lookup, Duration), ResolveError> {
        let mut name =
            Name::from_utf8(name).map_err(|error| ResolveError::InvalidName(error.to_string()))?;
        let mut ttl = Duration::MAX;
        for _ in 0..=MAX_ALIASES {
            let mut srv = pin!(self.resolver.lookup(name.clone(), RecordType::SRV));
            let mut alias = pin!(self.lookup_alias(name.clone()));
            // Both at once: hickory's search for the records of an alias may take long.
            let (found, alias) = tokio::select! {
                biased;
                found = &mut srv => match found {
                    Ok(found) => return Ok((found, ttl)),
                    Err(error) => (Err(error), alias.await),
                },
                alias = &mut alias => match alias {
                    None => (srv.await, None),
                    alias => (Err(NetError::from("the name is an alias")), alias),
                },
            };
            match (found, alias) {
                (Ok(found), _) => return Ok((found, ttl)),
                (Err(error), None) => return Err(ResolveError::from_net_error(error, "SRV")),
                (Err(_), Some((canonical, alias_ttl))) => {
                    ttl = ttl.min(alias_ttl);
                    name = canonical;
                }
            }
        }
        Err(ResolveError::TooManyAliases)
    }

    /// Returns the name that a name is an alias of, with the TTL of the alias.
    async fn lookup_alias(&self, name: Name) -> Option<(Name, Duration)> {
        let found = self.resolver.lookup(name, RecordType::CNAME).await.ok()?;
        found.answers().iter().find_map(|record| match &record.data {
            RData::CNAME(canonical) => {
                Some((canonical.0.clone(), Duration::from_secs(record.ttl.into())))
            }
            _ => None,
        })
    }
}

/// The most aliases in a row that lead to SRV records.
const MAX_ALIASES: usize = 8;

fn lowest_ttl(ttls: impl Iterator<Item = u32>) -> Duration {
    Duration::from_secs(ttls.min().unwrap_or(0).into())
}
