//! An active and a standby director.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::document::{Fault, Step};
use super::{duration, parsed, some_duration};
use crate::vrrp::{
    Checksum, ConfigError as VrrpError, Key, KeyLength, Notify, Preempt, RouterConfig, StartError,
    Version, VirtualAddress, VirtualRouter, Vrrp,
};

/// `[vrrp]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::director) struct VrrpConfig {
    interface: String,
    virtual_router_id: u8,
    #[serde(default = "hundred")]
    priority: u8,
    #[serde(default = "second", deserialize_with = "duration")]
    advert_interval: Duration,
    #[serde(default = "yes")]
    preempt: bool,
    #[serde(default, deserialize_with = "some_duration")]
    preempt_delay: Option<Duration>,
    #[serde(default, deserialize_with = "some_duration")]
    start_delay: Option<Duration>,
    addresses: Vec<Address>,
    /// What it sends from; otherwise the first of the interface.
    source: Option<IpAddr>,
    source_v6: Option<IpAddr>,
    #[serde(default)]
    peers: Vec<IpAddr>,
    #[serde(default = "three")]
    version: u8,
    #[serde(default)]
    checksum_as_v2: bool,
    #[serde(default)]
    virtual_mac: bool,
    /// In hexadecimal, 32 to 64 bytes.
    auth_key: Option<Secret>,
    /// What is taken off the priority while a service has no server that could serve.
    service_weight: Option<u8>,
    /// A program and its arguments.
    notify: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Address(#[serde(deserialize_with = "parsed")] VirtualAddress);

const fn hundred() -> u8 {
    100
}

const fn three() -> u8 {
    3
}

const fn yes() -> bool {
    true
}

const fn second() -> Duration {
    Duration::from_secs(1)
}

/// Bytes that are not to be shown.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(in crate::director) struct Secret(Vec<u8>);

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        const WRONG: &str = "a key is written in hexadecimal, as by `openssl rand -hex 32`";
        let digits: Option<Vec<u32>> = text.chars().map(|it| it.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or(WRONG)?;
        Ok(Self(digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl VrrpConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        let wrong = |key, what: &str| Err(Fault::new([Step::Key(key)], what));
        if self.addresses.is_empty() {
            return wrong("addresses", "there is none");
        }
        if !matches!(self.version, 2 | 3) {
            return wrong("version", "2 or 3");
        }
        if !self.preempt && self.preempt_delay.is_some() {
            return wrong("preempt_delay", "it does not preempt at all");
        }
        if self.notify.as_ref().is_some_and(Vec::is_empty) {
            return wrong("notify", "a program, and its arguments if any");
        }
        if let Some(Err(error)) = self.key() {
            return wrong("auth_key", &error.to_string());
        }
        let any = if self.version == 2 {
            Ipv4Addr::LOCALHOST.into()
        } else {
            IpAddr::from(Ipv6Addr::LOCALHOST)
        };
        self.election(any).check().or_else(|error| match error {
            VrrpError::Router(_) => wrong("virtual_router_id", &error.to_string()),
            VrrpError::Priority(_) => wrong("priority", &error.to_string()),
            _ => wrong("advert_interval", &error.to_string()),
        })
    }

    fn key(&self) -> Option<Result<Key, KeyLength>> {
        self.auth_key.as_ref().map(|Secret(bytes)| Key::new(1, bytes))
    }

    /// A virtual router for each family that there are addresses of.
    pub(in crate::director) fn routers(&self) -> Result<Vec<VirtualRouter>, StartError> {
        let mut routers = Vec::new();
        for is_v6 in [false, true] {
            let addresses: Vec<_> =
                self.addresses.iter().filter(|Address(it)| it.ip().is_ipv6() == is_v6).collect();
            if addresses.is_empty() {
                continue;
            }
            let source = if is_v6 { self.source_v6 } else { self.source };
            let source = match source {
                Some(source) => source,
                None => Vrrp::source(&self.interface, is_v6)?,
            };
            let mut router = VirtualRouter::new(&*self.interface, self.election(source))
                .virtual_mac(self.virtual_mac);
            if is_v6 && routers.len() == 1 {
                router = router.name(format!("{}@{}/v6", self.virtual_router_id, self.interface));
            }
            if self.checksum_as_v2 {
                router = router.checksum(Checksum::Message);
            }
            for Address(address) in addresses {
                router = router.address(*address);
            }
            for peer in self.peers.iter().filter(|peer| peer.is_ipv6() == is_v6) {
                router = router.peer(*peer);
            }
            if let Some(Ok(key)) = self.key() {
                router = router.key(key);
            }
            routers.push(router);
        }
        Ok(routers)
    }

    fn election(&self, source: IpAddr) -> RouterConfig {
        let preempt = match (self.preempt, self.preempt_delay) {
            (false, _) => Preempt::Never,
            (true, Some(delay)) => Preempt::After(delay),
            (true, None) => Preempt::Always,
        };
        RouterConfig::new(self.virtual_router_id, source)
            .version(if self.version == 2 { Version::V2 } else { Version::V3 })
            .priority(self.priority)
            .interval(self.advert_interval)
            .preempt(preempt)
            .start_delay(self.start_delay.unwrap_or_default())
    }

    /// What is taken off the priority for a service that cannot serve.
    pub(in crate::director) fn service_weight(&self) -> Option<u8> {
        self.service_weight
    }

    pub(in crate::director) fn notify(&self) -> Option<Notify> {
        let command = self.notify.as_ref()?;
        let report = |what: &str| tracing::warn!("vrrp notify: {what}");
        Some(Notify::new().always(command).report(report))
    }
}

/// `[sync]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::director) struct SyncConfig {
    /// Where the other director comes when this one is active.
    pub(in crate::director) listen: SocketAddr,
    /// Where this one goes when it is not.
    pub(in crate::director) peer: SocketAddr,
    key: SyncKey,
}

#[derive(Clone, Deserialize)]
#[serde(try_from = "Secret")]
struct SyncKey([u8; 32]);

impl fmt::Debug for SyncKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncKey")
    }
}

impl TryFrom<Secret> for SyncKey {
    type Error = &'static str;

    fn try_from(Secret(bytes): Secret) -> Result<Self, &'static str> {
        let bytes = bytes.try_into().map_err(|_| "a key of 32 bytes, which are 64 digits")?;
        Ok(Self(bytes))
    }
}

impl SyncConfig {
    pub(in crate::director) fn key(&self) -> &[u8; 32] {
        &self.key.0
    }
}
