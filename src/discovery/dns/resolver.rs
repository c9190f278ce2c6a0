//! The questions: what of hickory's resolver is used, and how.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use thiserror::Error;
use tokio::task::spawn_blocking;

use super::AddressFamilies;
use super::answer::{ResolvedAddresses, SrvRecord};

/// What became of a question.
#[derive(Debug, Error)]
pub(super) enum ResolveError {
    #[error("it is no name: {0}")]
    InvalidName(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("no such name (NXDOMAIN)")]
    NxDomain,
    #[error("the name has no {0} record")]
    NoData(&'static str),
    #[error("there is no such service: its target is the root")]
    NoService,
    #[error("no target of its SRV records has an address")]
    NoTargetAddress,
    #[error("the name server answers {0}")]
    ErrorCode(ResponseCode),
    #[error("the configuration of the system: {0}")]
    SystemConfig(NetError),
    #[error("{0}")]
    Net(NetError),
}

impl ResolveError {
    /// Tells whether it is an answer: that there is nothing.
    pub(super) fn is_negative_answer(&self) -> bool {
        matches!(self, Self::NxDomain | Self::NoData(_))
    }

    fn from_net_error(error: NetError, kind: &'static str) -> Self {
        if error.is_nx_domain() {
            return Self::NxDomain;
        }
        match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => Self::NoData(kind),
            NetError::Dns(DnsError::ResponseCode(code)) => Self::ErrorCode(code),
            error => Self::Net(error),
        }
    }
}

/// Tells whether a text can be a name in DNS.
pub(super) fn check_name(name: &str) -> Result<(), ResolveError> {
    if name.is_empty() {
        return Err(ResolveError::InvalidName("it is empty".to_owned()));
    }
    Name::from_utf8(name).map(drop).map_err(|error| ResolveError::InvalidName(error.to_string()))
}

/// Whom to ask, and for what.
#[derive(Debug, Default)]
pub(super) struct ResolverSettings {
    /// `None`: those of the system.
    pub(super) servers: Option<Vec<SocketAddr>>,
    pub(super) families: AddressFamilies,
}

/// A resolver for the questions of one refresh. Made anew for each, so it follows the system's
/// configuration, and holds no answer, no connection and no grudge against a server from before.
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
                // It reads files.
                let system = || TokioResolver::builder_tokio()?.build();
                match spawn_blocking(system).await {
                    Ok(resolver) => resolver.map_err(ResolveError::SystemConfig)?,
                    Err(_) => {
                        return Err(ResolveError::SystemConfig(NetError::from("the runtime ends")));
                    }
                }
            }
        };
        Ok(DnsResolver { resolver, families })
    }
}

fn resolver_with_servers(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let server = |address: &SocketAddr| {
        let ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut way| {
            way.port = address.port();
            way
        });
        NameServerConfig::new(address.ip(), true, ways.into())
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
    /// The addresses of a name. One family without records is no error; both without are.
    pub(super) async fn lookup_addresses(
        &self,
        name: &str,
    ) -> Result<ResolvedAddresses, ResolveError> {
        // An address written where a name should be: hickory would ask for it as a name.
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
            (Ok(found), Err(none)) | (Err(none), Ok(found)) if none.is_negative_answer() => {
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
        kind: RecordType,
        kind_name: &'static str,
    ) -> Result<ResolvedAddresses, ResolveError> {
        let found = self.resolver.lookup(name, kind).await;
        let found = found.map_err(|error| ResolveError::from_net_error(error, kind_name))?;
        let list: Vec<IpAddr> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(a) => Some(IpAddr::V6(a.0)),
                _ => None,
            })
            .collect();
        if list.is_empty() {
            return Err(ResolveError::NoData(kind_name));
        }
        let ttl = lowest_ttl(found.answers().iter().map(|record| record.ttl));
        Ok(ResolvedAddresses { addresses: list, ttl })
    }

    /// The SRV records of a service, and how long they are good for.
    pub(super) async fn lookup_srv(
        &self,
        name: &str,
    ) -> Result<(Vec<SrvRecord>, Duration), ResolveError> {
        let found = self.resolver.lookup(name, RecordType::SRV).await;
        let found = found.map_err(|error| ResolveError::from_net_error(error, "SRV"))?;
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
        Ok((records, ttl))
    }
}

fn lowest_ttl(ttls: impl Iterator<Item = u32>) -> Duration {
    Duration::from_secs(ttls.min().unwrap_or(0).into())
}
