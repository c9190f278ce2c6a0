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

use super::Families;
use super::answer::{Addresses, Srv};

/// What became of a question.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error("it is no name: {0}")]
    NoName(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("no such name (NXDOMAIN)")]
    NoSuchName,
    #[error("the name has no {0} record")]
    NoRecords(&'static str),
    #[error("there is no such service: its target is the root")]
    NoService,
    #[error("no target of its SRV records has an address")]
    NoTarget,
    #[error("the name server answers {0}")]
    Code(ResponseCode),
    #[error("the configuration of the system: {0}")]
    System(NetError),
    #[error("{0}")]
    Net(NetError),
}

impl Error {
    /// Tells whether it is an answer: that there is nothing.
    pub(super) fn says_none(&self) -> bool {
        matches!(self, Self::NoSuchName | Self::NoRecords(_))
    }

    fn of(error: NetError, kind: &'static str) -> Self {
        if error.is_nx_domain() {
            return Self::NoSuchName;
        }
        match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => Self::NoRecords(kind),
            NetError::Dns(DnsError::ResponseCode(code)) => Self::Code(code),
            error => Self::Net(error),
        }
    }
}

/// Tells whether a text can be a name in DNS.
pub(super) fn check(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::NoName("it is empty".to_owned()));
    }
    Name::from_utf8(name).map(drop).map_err(|error| Error::NoName(error.to_string()))
}

/// Whom to ask, and for what.
#[derive(Debug, Default)]
pub(super) struct Resolve {
    /// `None`: those of the system.
    pub(super) servers: Option<Vec<SocketAddr>>,
    pub(super) families: Families,
}

/// A resolver for the questions of one refresh. Made anew for each, so it follows the system's
/// configuration, and holds no answer, no connection and no grudge against a server from before.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    resolver: TokioResolver,
    families: Families,
}

impl Resolve {
    pub(super) async fn prepare(&self) -> Result<Lookup, Error> {
        let families = self.families;
        let resolver = match &self.servers {
            Some(servers) => with_servers(servers).map_err(Error::Net)?,
            None => {
                // It reads files.
                let system = || TokioResolver::builder_tokio()?.build();
                match spawn_blocking(system).await {
                    Ok(resolver) => resolver.map_err(Error::System)?,
                    Err(_) => return Err(Error::System(NetError::from("the runtime ends"))),
                }
            }
        };
        Ok(Lookup { resolver, families })
    }
}

fn with_servers(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
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

impl Lookup {
    /// The addresses of a name. One family without records is no error; both without are.
    pub(super) async fn addresses(&self, name: &str) -> Result<Addresses, Error> {
        // An address written where a name should be: hickory would ask for it as a name.
        if let Ok(address) = name.trim_end_matches('.').parse::<IpAddr>() {
            return Ok(Addresses { list: vec![address], ttl: Duration::MAX });
        }
        let (v4, v6) = match self.families {
            Families::V4 => return self.family(name, RecordType::A, "A").await,
            Families::V6 => return self.family(name, RecordType::AAAA, "AAAA").await,
            Families::Both => tokio::join!(
                self.family(name, RecordType::A, "A"),
                self.family(name, RecordType::AAAA, "AAAA"),
            ),
        };
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.list.extend(v6.list);
                Ok(Addresses { ttl: v4.ttl.min(v6.ttl), ..v4 })
            }
            (Ok(found), Err(none)) | (Err(none), Ok(found)) if none.says_none() => Ok(found),
            (Err(Error::NoRecords(_)), Err(Error::NoRecords(_))) => {
                Err(Error::NoRecords("A or AAAA"))
            }
            (Err(v4), Err(v6)) if v4.says_none() => Err(v6),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    async fn family(
        &self,
        name: &str,
        kind: RecordType,
        kind_name: &'static str,
    ) -> Result<Addresses, Error> {
        let found = self.resolver.lookup(name, kind).await;
        let found = found.map_err(|error| Error::of(error, kind_name))?;
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
            return Err(Error::NoRecords(kind_name));
        }
        let ttl = lowest(found.answers().iter().map(|record| record.ttl));
        Ok(Addresses { list, ttl })
    }

    /// The SRV records of a service, and how long they are good for.
    pub(super) async fn srv(&self, name: &str) -> Result<(Vec<Srv>, Duration), Error> {
        let found = self.resolver.lookup(name, RecordType::SRV).await;
        let found = found.map_err(|error| Error::of(error, "SRV"))?;
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_utf8(),
            }),
            _ => None,
        });
        let mut records: Vec<Srv> = records.collect();
        if records.is_empty() {
            return Err(Error::NoRecords("SRV"));
        }
        records.retain(|record| record.target != ".");
        if records.is_empty() {
            return Err(Error::NoService);
        }
        let ttl = lowest(found.answers().iter().map(|record| record.ttl));
        Ok((records, ttl))
    }
}

fn lowest(ttls: impl Iterator<Item = u32>) -> Duration {
    Duration::from_secs(ttls.min().unwrap_or(0).into())
}
