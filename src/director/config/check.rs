//! How servers are checked.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::error::{ConfigProblem, KeyPathSegment};
use super::value::{
    CodeRanges, FromText, HexSecret, HumanDuration, SecretString, apply_duration_if_some,
    apply_if_some, decode_hex,
};
use crate::health::{
    AgentCheck, BytePattern, CommandCheck, DnsCheck, FileCheck, GrpcCheck, HttpCheck, IcmpCheck,
    MysqlCheck, PostgresCheck, RedisCheck, SmtpCheck, TcpCheck, TimedCheck, TlsCheck, TlsSettings,
    UdpCheck,
};

/// What asks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckKind {
    Agent,
    Command,
    Dns,
    File,
    Grpc,
    Http,
    Mysql,
    Ping,
    Postgres,
    Redis,
    Smtp,
    Tcp,
    Tls,
    Udp,
}

/// One struct for all kinds of checks, so that an error has its place. Each kind takes what is its
/// own, and what is left then belongs to another.
macro_rules! check {
    ($($(#[$about:meta])* $key:ident: $type:ty,)*) => {
        /// `health`: a question, when it is asked, and what the answers mean.
        #[derive(Clone, Debug, Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct CheckConfig {
            #[serde(rename = "type")]
            kind: CheckKind,
            $($(#[$about])* $key: Option<$type>,)*
        }

        impl CheckConfig {
            /// What nobody has taken.
            fn left(&self) -> Option<&'static str> {
                $(if self.$key.is_some() {
                    return Some(stringify!($key));
                })*
                None
            }
        }
    };
}

check! {
    // Of all.
    interval: HumanDuration,
    fast_interval: HumanDuration,
    down_interval: HumanDuration,
    timeout: HumanDuration,
    rise: u32,
    fall: u32,
    jitter: u8,
    port: u16,
    source: IpAddr,
    // Of some.
    accept_codes: CodeRanges,
    address: IpAddr,
    arguments: Vec<String>,
    authority: String,
    body: String,
    body_digest: String,
    body_limit: usize,
    body_not: String,
    command: PathBuf,
    database: String,
    dynamic: bool,
    environment: BTreeMap<String, String>,
    exists: bool,
    expect: String,
    expect_bytes: FromText<BytePattern>,
    expect_within: String,
    file: PathBuf,
    greeting_only: bool,
    headers: BTreeMap<String, String>,
    hello: String,
    http2: bool,
    listen_for: HumanDuration,
    method: String,
    name: String,
    password: SecretString,
    path: String,
    record: String,
    record_type: String,
    reply_lengths: [usize; 2],
    reversed: bool,
    role: RedisRoleConfig,
    send: String,
    send_bytes: HexSecret,
    service: String,
    status: CodeRanges,
    tls: CheckTlsConfig,
    user: String,
    weight: i32,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum RedisRoleConfig {
    Master,
    Replica,
}

/// `tls`: whom to trust.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckTlsConfig {
    #[serde(default)]
    trust: TlsTrustConfig,
    /// Authorities in MAX_AUTHORITIES_FILE.
    authorities: Option<PathBuf>,
    /// The digest of a certificate.
    pinned: Option<String>,
    name: Option<String>,
    warn_before_days: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum TlsTrustConfig {
    #[default]
    System,
    Anybody,
}

/// The longest file of authorities: ten times what a machine trusts.
const MAX_AUTHORITIES_FILE: u64 = 4 << 20;

/// What is wrong, and with which key.
type CheckKeyProblem = (&'static str, String);

/// An error as what is wrong with a key.
trait WithKey<T> {
    fn with_key(self, key: &'static str) -> Result<T, CheckKeyProblem>;
}

impl<T, E: ToString> WithKey<T> for Result<T, E> {
    fn with_key(self, key: &'static str) -> Result<T, CheckKeyProblem> {
        self.map_err(|error| (key, error.to_string()))
    }
}

impl CheckConfig {
    pub(super) fn to_checks(&self) -> Result<TimedCheck, ConfigProblem> {
        let fault =
            |(key, what): CheckKeyProblem| ConfigProblem::new([KeyPathSegment::Key(key)], what);
        let mut left = self.clone();
        let checks = left.build_checks().map_err(fault)?;
        let checks = left.apply_timing(checks);
        match left.left() {
            Some(key) => {
                let kind = format!("{:?}", self.kind).to_lowercase();
                Err(fault((key, format!("checks of type {kind} have none"))))
            }
            None => Ok(checks),
        }
    }

    /// Takes what says when to ask, and what answers mean.
    fn apply_timing(&mut self, checks: TimedCheck) -> TimedCheck {
        let interval = self.interval.take();
        // Without a word about it, a check may take as long as there is until the next.
        let checks =
            apply_duration_if_some(checks, self.timeout.take().or(interval), TimedCheck::timeout);
        let checks = apply_duration_if_some(checks, interval, TimedCheck::interval);
        let checks =
            apply_duration_if_some(checks, self.fast_interval.take(), TimedCheck::fast_interval);
        let checks =
            apply_duration_if_some(checks, self.down_interval.take(), TimedCheck::down_interval);
        let checks = apply_if_some(checks, self.rise.take(), TimedCheck::rise);
        let checks = apply_if_some(checks, self.fall.take(), TimedCheck::fall);
        let checks = apply_if_some(checks, self.jitter.take(), TimedCheck::jitter);
        let checks = apply_if_some(checks, self.port.take(), TimedCheck::port);
        apply_if_some(checks, self.source.take(), TimedCheck::source)
    }

    /// Takes what the question is.
    fn build_checks(&mut self) -> Result<TimedCheck, CheckKeyProblem> {
        Ok(match self.kind {
            CheckKind::Agent => TimedCheck::new(apply_if_some(
                AgentCheck::new(),
                self.take_payload(),
                AgentCheck::send,
            )),
            CheckKind::Command => TimedCheck::new(self.build_command_check()?),
            CheckKind::Dns => TimedCheck::new(self.build_dns_check()?),
            CheckKind::File => TimedCheck::new(self.build_file_check()?),
            CheckKind::Grpc => {
                let check = GrpcCheck::new(self.service.take().unwrap_or_default());
                let check = apply_if_some(check, self.authority.take(), GrpcCheck::authority);
                TimedCheck::new(apply_if_some(check, self.take_tls()?, GrpcCheck::tls))
            }
            CheckKind::Http => TimedCheck::new(self.build_http_check()?),
            CheckKind::Mysql => {
                let check = apply_if_some(MysqlCheck::new(), self.user.take(), MysqlCheck::user);
                let alone = self.greeting_only.take().unwrap_or_default();
                TimedCheck::new(if alone { check.greeting_only() } else { check })
            }
            CheckKind::Ping => TimedCheck::new(IcmpCheck::new()),
            CheckKind::Postgres => {
                let check =
                    apply_if_some(PostgresCheck::new(), self.user.take(), PostgresCheck::user);
                TimedCheck::new(apply_if_some(check, self.database.take(), PostgresCheck::database))
            }
            CheckKind::Redis => {
                let check = apply_if_some(RedisCheck::new(), self.user.take(), RedisCheck::user);
                let password = self.password.take().map(|SecretString(password)| password);
                let check = apply_if_some(check, password, RedisCheck::password);
                TimedCheck::new(match self.role.take() {
                    Some(RedisRoleConfig::Master) => check.master(),
                    Some(RedisRoleConfig::Replica) => check.replica(),
                    None => check,
                })
            }
            CheckKind::Smtp => TimedCheck::new(apply_if_some(
                SmtpCheck::new(),
                self.hello.take(),
                SmtpCheck::helo_name,
            )),
            CheckKind::Tcp => {
                let check = apply_if_some(TcpCheck::new(), self.take_payload(), TcpCheck::send);
                let check = apply_if_some(check, self.expect.take(), TcpCheck::expect);
                TimedCheck::new(apply_if_some(
                    check,
                    self.expect_within.take(),
                    TcpCheck::expect_within,
                ))
            }
            CheckKind::Tls => TimedCheck::new(TlsCheck::new(match self.take_tls()? {
                Some(tls) => tls,
                None => TlsSettings::system_roots().with_key("tls")?,
            })),
            CheckKind::Udp => {
                let check = apply_if_some(UdpCheck::new(), self.take_payload(), UdpCheck::payload);
                let pattern = self.expect_bytes.take().map(|FromText(pattern)| pattern);
                let check = apply_if_some(check, pattern, UdpCheck::expect_reply);
                let lengths = self.reply_lengths.take().map(|[least, most]| least..=most);
                let check = apply_if_some(check, lengths, UdpCheck::reply_lengths);
                TimedCheck::new(apply_duration_if_some(
                    check,
                    self.listen_for.take(),
                    UdpCheck::listen_for,
                ))
            }
        })
    }

    /// Bytes to send, as text or in hexadecimal.
    fn take_payload(&mut self) -> Option<Vec<u8>> {
        let text = self.send.take().map(String::into_bytes);
        text.or_else(|| self.send_bytes.take().map(|HexSecret(bytes)| bytes))
    }

    fn build_command_check(&mut self) -> Result<CommandCheck, CheckKeyProblem> {
        let program = self.command.take().ok_or("which program?").with_key("command")?;
        let check = CommandCheck::new(program).args(self.arguments.take().unwrap_or_default());
        let variables = self.environment.take().unwrap_or_default();
        let check =
            variables.into_iter().fold(check, |check, (name, value)| check.env(name, value));
        Ok(if self.dynamic.take().unwrap_or_default() { check.dynamic() } else { check })
    }

    fn build_dns_check(&mut self) -> Result<DnsCheck, CheckKeyProblem> {
        let kind = self.record_type.take();
        let check = match self.name.take() {
            Some(name) => {
                DnsCheck::query(&name, kind.as_deref().unwrap_or("A")).with_key("name")?
            }
            None if kind.is_none() => DnsCheck::new(),
            None => return Err(("record_type", "of which `name`?".to_owned())),
        };
        let codes = self.accept_codes.take().map(|CodeRanges(codes)| codes.into_iter().flatten());
        let check = apply_if_some(check, codes, DnsCheck::accept_codes);
        let check = apply_if_some(check, self.address.take(), DnsCheck::expect_address);
        match self.record.take() {
            Some(data) => check.expect_record(&data).with_key("record"),
            None => Ok(check),
        }
    }

    fn build_file_check(&mut self) -> Result<FileCheck, CheckKeyProblem> {
        let path = self.file.take().ok_or("which file?").with_key("file")?;
        let check = match self.exists.take().unwrap_or_default() {
            true => FileCheck::exists(path),
            false => apply_if_some(FileCheck::value(path), self.weight.take(), FileCheck::weight),
        };
        Ok(if self.reversed.take().unwrap_or_default() { check.reversed() } else { check })
    }

    fn build_http_check(&mut self) -> Result<HttpCheck, CheckKeyProblem> {
        let method = self.method.take().unwrap_or_else(|| "GET".to_owned());
        let path = self.path.take().unwrap_or_else(|| "/".to_owned());
        let mut check = HttpCheck::new(&method, &path).with_key("path")?;
        for (name, value) in self.headers.take().unwrap_or_default() {
            check = check.header(&name, &value).with_key("headers")?;
        }
        let statuses = self.status.take().map(|CodeRanges(codes)| codes).unwrap_or_default();
        check = statuses.into_iter().fold(check, HttpCheck::accept_status);
        if let Some(regex) = self.body.take() {
            check = check.body_matches(&regex).with_key("body")?;
        }
        if let Some(regex) = self.body_not.take() {
            check = check.body_does_not_match(&regex).with_key("body_not")?;
        }
        if let Some(digest) = self.body_digest.take() {
            check = check.body_digest(&digest).with_key("body_digest")?;
        }
        check = apply_if_some(check, self.body_limit.take(), HttpCheck::body_limit);
        if self.http2.take().unwrap_or_default() {
            check = check.http2();
        }
        Ok(apply_if_some(check, self.take_tls()?, HttpCheck::tls))
    }

    fn take_tls(&mut self) -> Result<Option<TlsSettings>, CheckKeyProblem> {
        self.tls.take().map(|asked| asked.to_tls().with_key("tls")).transpose()
    }
}

impl CheckTlsConfig {
    fn to_tls(&self) -> Result<TlsSettings, Box<dyn Error>> {
        let mut tls = match (&self.authorities, &self.pinned, self.trust) {
            (Some(_), Some(_), _) => return Err("either `authorities` or `pinned`".into()),
            (Some(path), None, _) => {
                let mut text = Vec::new();
                let read = File::open(path)
                    .and_then(|it| it.take(MAX_AUTHORITIES_FILE).read_to_end(&mut text));
                read.map_err(|error| format!("{}: {error}", path.display()))?;
                TlsSettings::authorities(&text)?
            }
            (None, Some(digits), _) => {
                let digest =
                    decode_hex(&digits.replace(':', "")).and_then(|bytes| bytes.try_into().ok());
                TlsSettings::pinned(digest.ok_or("`pinned` is a SHA-256 digest, of 64 digits")?)
            }
            (None, None, TlsTrustConfig::System) => TlsSettings::system_roots()?,
            (None, None, TlsTrustConfig::Anybody) => TlsSettings::unverified(),
        };
        if let Some(name) = &self.name {
            tls = tls.server_name(name)?;
        }
        Ok(apply_if_some(tls, self.warn_before_days, TlsSettings::warn_before_days))
    }
}
