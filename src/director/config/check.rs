//! How servers are checked.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::document::{Fault, Step};
use super::value::{Codes, Hidden, Parsed, Secret, Time, hex, put, put_time};
use crate::health::{
    AgentCheck, BytePattern, Checks, CommandCheck, DnsCheck, FileCheck, GrpcCheck, HttpCheck,
    IcmpCheck, MysqlCheck, PostgresCheck, RedisCheck, SmtpCheck, TcpCheck, Tls, TlsCheck, UdpCheck,
};

/// What asks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
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
            kind: Kind,
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
    interval: Time,
    fast_interval: Time,
    down_interval: Time,
    timeout: Time,
    rise: u32,
    fall: u32,
    jitter: u8,
    port: u16,
    source: IpAddr,
    // Of some.
    accept_codes: Codes,
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
    expect_bytes: Parsed<BytePattern>,
    expect_within: String,
    file: PathBuf,
    greeting_only: bool,
    headers: BTreeMap<String, String>,
    hello: String,
    http2: bool,
    listen_for: Time,
    method: String,
    name: String,
    password: Hidden,
    path: String,
    record: String,
    record_type: String,
    reply_lengths: [usize; 2],
    reversed: bool,
    role: Role,
    send: String,
    send_bytes: Secret,
    service: String,
    status: Codes,
    tls: TlsConfig,
    user: String,
    weight: i32,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Role {
    Master,
    Replica,
}

/// `tls`: whom to trust.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    #[serde(default)]
    trust: Trust,
    /// Authorities in PEM.
    authorities: Option<PathBuf>,
    /// The digest of a certificate.
    pinned: Option<String>,
    name: Option<String>,
    warn_before_days: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Trust {
    #[default]
    System,
    Anybody,
}

/// The longest file of authorities: ten times what a machine trusts.
const PEM: u64 = 4 << 20;

/// What is wrong, and with which key.
type Wrong = (&'static str, String);

/// An error as what is wrong with a key.
trait At<T> {
    fn at(self, key: &'static str) -> Result<T, Wrong>;
}

impl<T, E: ToString> At<T> for Result<T, E> {
    fn at(self, key: &'static str) -> Result<T, Wrong> {
        self.map_err(|error| (key, error.to_string()))
    }
}

impl CheckConfig {
    pub(super) fn checks(&self) -> Result<Checks, Fault> {
        let fault = |(key, what): Wrong| Fault::new([Step::Key(key)], what);
        let mut left = self.clone();
        let checks = left.question().map_err(fault)?;
        let checks = left.timing(checks);
        match left.left() {
            Some(key) => {
                let kind = format!("{:?}", self.kind).to_lowercase();
                Err(fault((key, format!("checks of type {kind} have none"))))
            }
            None => Ok(checks),
        }
    }

    /// Takes what says when to ask, and what answers mean.
    fn timing(&mut self, checks: Checks) -> Checks {
        let interval = self.interval.take();
        // Without a word about it, a check may take as long as there is until the next.
        let checks = put_time(checks, self.timeout.take().or(interval), Checks::timeout);
        let checks = put_time(checks, interval, Checks::interval);
        let checks = put_time(checks, self.fast_interval.take(), Checks::fast_interval);
        let checks = put_time(checks, self.down_interval.take(), Checks::down_interval);
        let checks = put(checks, self.rise.take(), Checks::rise);
        let checks = put(checks, self.fall.take(), Checks::fall);
        let checks = put(checks, self.jitter.take(), Checks::jitter);
        let checks = put(checks, self.port.take(), Checks::port);
        put(checks, self.source.take(), Checks::from_source)
    }

    /// Takes what the question is.
    fn question(&mut self) -> Result<Checks, Wrong> {
        Ok(match self.kind {
            Kind::Agent => Checks::new(put(AgentCheck::new(), self.sends(), AgentCheck::send)),
            Kind::Command => Checks::new(self.command()?),
            Kind::Dns => Checks::new(self.dns()?),
            Kind::File => Checks::new(self.file()?),
            Kind::Grpc => {
                let check = GrpcCheck::new(self.service.take().unwrap_or_default());
                let check = put(check, self.authority.take(), GrpcCheck::authority);
                Checks::new(put(check, self.tls()?, GrpcCheck::tls))
            }
            Kind::Http => Checks::new(self.http()?),
            Kind::Mysql => {
                let check = put(MysqlCheck::new(), self.user.take(), MysqlCheck::user);
                let alone = self.greeting_only.take().unwrap_or_default();
                Checks::new(if alone { check.greeting_only() } else { check })
            }
            Kind::Ping => Checks::new(IcmpCheck::new()),
            Kind::Postgres => {
                let check = put(PostgresCheck::new(), self.user.take(), PostgresCheck::user);
                Checks::new(put(check, self.database.take(), PostgresCheck::database))
            }
            Kind::Redis => {
                let check = put(RedisCheck::new(), self.user.take(), RedisCheck::user);
                let password = self.password.take().map(|Hidden(password)| password);
                let check = put(check, password, RedisCheck::password);
                Checks::new(match self.role.take() {
                    Some(Role::Master) => check.master(),
                    Some(Role::Replica) => check.replica(),
                    None => check,
                })
            }
            Kind::Smtp => Checks::new(put(SmtpCheck::new(), self.hello.take(), SmtpCheck::hello)),
            Kind::Tcp => {
                let check = put(TcpCheck::new(), self.sends(), TcpCheck::send);
                let check = put(check, self.expect.take(), TcpCheck::expect);
                Checks::new(put(check, self.expect_within.take(), TcpCheck::expect_within))
            }
            Kind::Tls => Checks::new(TlsCheck::new(match self.tls()? {
                Some(tls) => tls,
                None => Tls::system_roots().at("tls")?,
            })),
            Kind::Udp => {
                let check = put(UdpCheck::new(), self.sends(), UdpCheck::payload);
                let pattern = self.expect_bytes.take().map(|Parsed(pattern)| pattern);
                let check = put(check, pattern, UdpCheck::expecting);
                let lengths = self.reply_lengths.take().map(|[least, most]| least..=most);
                let check = put(check, lengths, UdpCheck::reply_lengths);
                Checks::new(put_time(check, self.listen_for.take(), UdpCheck::listen_for))
            }
        })
    }

    /// Bytes to send, as text or in hexadecimal.
    fn sends(&mut self) -> Option<Vec<u8>> {
        let text = self.send.take().map(String::into_bytes);
        text.or_else(|| self.send_bytes.take().map(|Secret(bytes)| bytes))
    }

    fn command(&mut self) -> Result<CommandCheck, Wrong> {
        let program = self.command.take().ok_or("which program?").at("command")?;
        let check = CommandCheck::new(program).args(self.arguments.take().unwrap_or_default());
        let variables = self.environment.take().unwrap_or_default();
        let check =
            variables.into_iter().fold(check, |check, (name, value)| check.env(name, value));
        Ok(if self.dynamic.take().unwrap_or_default() { check.dynamic() } else { check })
    }

    fn dns(&mut self) -> Result<DnsCheck, Wrong> {
        let kind = self.record_type.take();
        let check = match self.name.take() {
            Some(name) => DnsCheck::asking(&name, kind.as_deref().unwrap_or("A")).at("name")?,
            None if kind.is_none() => DnsCheck::new(),
            None => return Err(("record_type", "of which `name`?".to_owned())),
        };
        let codes = self.accept_codes.take().map(|Codes(codes)| codes.into_iter().flatten());
        let check = put(check, codes, DnsCheck::accepting);
        let check = put(check, self.address.take(), DnsCheck::expecting_address);
        match self.record.take() {
            Some(data) => check.expecting_record(&data).at("record"),
            None => Ok(check),
        }
    }

    fn file(&mut self) -> Result<FileCheck, Wrong> {
        let path = self.file.take().ok_or("which file?").at("file")?;
        let check = match self.exists.take().unwrap_or_default() {
            true => FileCheck::exists(path),
            false => put(FileCheck::value(path), self.weight.take(), FileCheck::weight),
        };
        Ok(if self.reversed.take().unwrap_or_default() { check.reversed() } else { check })
    }

    fn http(&mut self) -> Result<HttpCheck, Wrong> {
        let method = self.method.take().unwrap_or_else(|| "GET".to_owned());
        let path = self.path.take().unwrap_or_else(|| "/".to_owned());
        let mut check = HttpCheck::new(&method, &path).at("path")?;
        for (name, value) in self.headers.take().unwrap_or_default() {
            check = check.header(&name, &value).at("headers")?;
        }
        let statuses = self.status.take().map(|Codes(codes)| codes).unwrap_or_default();
        check = statuses.into_iter().fold(check, HttpCheck::accept);
        if let Some(regex) = self.body.take() {
            check = check.body_matches(&regex).at("body")?;
        }
        if let Some(regex) = self.body_not.take() {
            check = check.body_does_not_match(&regex).at("body_not")?;
        }
        if let Some(digest) = self.body_digest.take() {
            check = check.body_digest(&digest).at("body_digest")?;
        }
        check = put(check, self.body_limit.take(), HttpCheck::body_limit);
        if self.http2.take().unwrap_or_default() {
            check = check.http2();
        }
        Ok(put(check, self.tls()?, HttpCheck::tls))
    }

    fn tls(&mut self) -> Result<Option<Tls>, Wrong> {
        self.tls.take().map(|asked| asked.tls().at("tls")).transpose()
    }
}

impl TlsConfig {
    fn tls(&self) -> Result<Tls, Box<dyn Error>> {
        let mut tls = match (&self.authorities, &self.pinned, self.trust) {
            (Some(_), Some(_), _) => return Err("either `authorities` or `pinned`".into()),
            (Some(path), None, _) => {
                let mut text = Vec::new();
                let read = File::open(path).and_then(|it| it.take(PEM).read_to_end(&mut text));
                read.map_err(|error| format!("{}: {error}", path.display()))?;
                Tls::authorities(&text)?
            }
            (None, Some(digits), _) => {
                let digest = hex(&digits.replace(':', "")).and_then(|bytes| bytes.try_into().ok());
                Tls::pinned(digest.ok_or("`pinned` is a SHA-256 digest, of 64 digits")?)
            }
            (None, None, Trust::System) => Tls::system_roots()?,
            (None, None, Trust::Anybody) => Tls::unverified(),
        };
        if let Some(name) = &self.name {
            tls = tls.name(name)?;
        }
        Ok(put(tls, self.warn_before_days, Tls::warn_before_days))
    }
}
