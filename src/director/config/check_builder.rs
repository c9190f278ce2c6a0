//! Health checks, built from `health` tables.

use std::net::IpAddr;

use super::check::{CheckConfig, CheckKind, CheckProxyConfig, RedisRoleConfig};
use super::custom::CustomCheck;
use super::error::{ConfigProblem, KeyPathSegment};
use super::value::{
    CodeRanges, FromText, HexSecret, LengthRange, SecretString, apply_duration_if_some,
    apply_if_some,
};
use crate::ProgramUser;
use crate::health::{
    AgentCheck, CheckProxyHeader, CommandCheck, DnsCheck, DnsCheckError, FileCheck, GrpcCheck,
    HttpCheck, HttpCheckError, IcmpCheck, MysqlCheck, PostgresCheck, RedisCheck, SmtpCheck,
    TcpCheck, TimedCheck, TlsCheck, TlsSettings, UdpCheck,
};

/// Names the key that an error is about.
trait WithKey<T> {
    fn with_key(self, key: &'static str) -> Result<T, ConfigProblem>;
}

impl<T, E: ToString> WithKey<T> for Result<T, E> {
    fn with_key(self, key: &'static str) -> Result<T, ConfigProblem> {
        self.map_err(|error| ConfigProblem::at_key(key, error.to_string()))
    }
}

impl CheckConfig {
    /// Builds the check; refuses keys that its type does not use.
    ///
    /// `service_header` is the PROXY header that the service sends to its servers.
    pub(super) fn to_checks(
        &self,
        service_header: Option<CheckProxyHeader>,
    ) -> Result<TimedCheck, ConfigProblem> {
        // Each step takes the keys that it uses, so that the rest are those of other types.
        let mut unused = self.clone();
        let check = unused.build_check()?;
        let check =
            apply_if_some(check, unused.take_proxy_header(service_header), TimedCheck::send_proxy);
        let check = unused.apply_timing(check);
        if self.connects() {
            unused.virtual_address = None;
        }
        match unused.first_key() {
            Some(key) => {
                let kind = match &self.kind {
                    CheckKind::Custom(_) => "custom".to_owned(),
                    kind => format!("{kind:?}").to_lowercase(),
                };
                let reason = format!("checks of type {kind:?} do not use `{key}`");
                Err(ConfigProblem::at_key(key, reason))
            }
            None => Ok(check),
        }
    }

    /// Refuses a program that this machine does not have, or may not execute.
    pub(super) fn validate_program(&self) -> Result<(), ConfigProblem> {
        match &self.command {
            Some(program) => CommandCheck::new(program).validated().map(drop).with_key("command"),
            None => Ok(()),
        }
    }

    /// Refuses a source address that is not of the family of the address to check.
    pub(super) fn validate_source(&self, server: IpAddr) -> Result<(), ConfigProblem> {
        match self.source {
            Some(source) if source.is_ipv4() != server.is_ipv4() => {
                let reason = format!("{source} is not of the family of {server}, which is checked");
                Err(reason).with_key("source")
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the sockets of the check are those of this crate.
    fn connects(&self) -> bool {
        let others = matches!(
            self.kind,
            CheckKind::Command | CheckKind::Custom(_) | CheckKind::File | CheckKind::Ping
        );
        !others
    }

    /// Takes the PROXY header, if the type connects by TCP.
    fn take_proxy_header(
        &mut self,
        service_header: Option<CheckProxyHeader>,
    ) -> Option<CheckProxyHeader> {
        match self.kind {
            CheckKind::Command
            | CheckKind::Dns
            | CheckKind::File
            | CheckKind::Ping
            | CheckKind::Udp => None,
            _ => match self.send_proxy.take() {
                Some(CheckProxyConfig::None) => None,
                Some(CheckProxyConfig::V1) => Some(CheckProxyHeader::V1),
                Some(CheckProxyConfig::V2) => Some(CheckProxyHeader::V2),
                // Another port is another program, which may know nothing of the header.
                None if self.port.is_some() || self.kind == CheckKind::Agent => None,
                None => service_header,
            },
        }
    }

    /// Takes the keys that every type has.
    fn apply_timing(&mut self, check: TimedCheck) -> TimedCheck {
        let interval = self.interval.take();
        let timeout = self.timeout.take().or(interval);
        let check = apply_duration_if_some(check, timeout, TimedCheck::timeout);
        let check = apply_duration_if_some(check, interval, TimedCheck::interval);
        let check =
            apply_duration_if_some(check, self.fast_interval.take(), TimedCheck::fast_interval);
        let check =
            apply_duration_if_some(check, self.down_interval.take(), TimedCheck::down_interval);
        let check = apply_if_some(check, self.rise.take(), TimedCheck::rise);
        let check = apply_if_some(check, self.fall.take(), TimedCheck::fall);
        let check = apply_if_some(check, self.jitter.take(), TimedCheck::jitter);
        let check = apply_if_some(check, self.init.take().map(Into::into), TimedCheck::init);
        let check = apply_if_some(check, self.port.take(), TimedCheck::port);
        apply_if_some(check, self.source.take(), TimedCheck::source)
    }

    /// Takes the keys of the type.
    fn build_check(&mut self) -> Result<TimedCheck, ConfigProblem> {
        Ok(match self.kind.clone() {
            CheckKind::Custom(CustomCheck(check)) => check,
            CheckKind::Agent => {
                let check =
                    apply_if_some(AgentCheck::new(), self.take_payload()?, AgentCheck::send);
                let required = self.agent_required.take().unwrap_or_default();
                let check = if required { check.required() } else { check };
                // As HAProxy: what an agent says applies at once.
                TimedCheck::new(check).rise(1).fall(1)
            }
            CheckKind::Command => TimedCheck::new(self.build_command_check()?),
            CheckKind::Dns => TimedCheck::new(self.build_dns_check()?),
            CheckKind::File => TimedCheck::new(self.build_file_check()?),
            CheckKind::Grpc => {
                let check = GrpcCheck::new(self.service.take().unwrap_or_default());
                let check = match self.authority.take() {
                    Some(authority) => check.authority(authority).with_key("authority")?,
                    None => check,
                };
                TimedCheck::new(apply_if_some(check, self.take_tls()?, GrpcCheck::tls))
            }
            CheckKind::Http => TimedCheck::new(self.build_http_check()?),
            CheckKind::Mysql => {
                let check = match self.user.take() {
                    Some(user) => MysqlCheck::new().user(user).with_key("user")?,
                    None => MysqlCheck::new(),
                };
                let greeting_only = self.greeting_only.take().unwrap_or_default();
                TimedCheck::new(if greeting_only { check.greeting_only() } else { check })
            }
            CheckKind::Ping => TimedCheck::new(IcmpCheck::new()),
            CheckKind::Postgres => {
                let mut check = PostgresCheck::new();
                if let Some(user) = self.user.take() {
                    check = check.user(user).with_key("user")?;
                }
                if let Some(database) = self.database.take() {
                    check = check.database(database).with_key("database")?;
                }
                TimedCheck::new(check)
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
            CheckKind::Smtp => TimedCheck::new(match self.helo_name.take() {
                Some(name) => SmtpCheck::new().helo_name(name).with_key("helo_name")?,
                None => SmtpCheck::new(),
            }),
            CheckKind::Tcp => {
                let check = apply_if_some(TcpCheck::new(), self.take_payload()?, TcpCheck::send);
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
                let check = apply_if_some(UdpCheck::new(), self.take_payload()?, UdpCheck::payload);
                let pattern = self.expect_bytes.take().map(|FromText(pattern)| pattern);
                let check = apply_if_some(check, pattern, UdpCheck::expect_reply);
                let lengths = self.reply_lengths.take().map(|LengthRange([min, max])| min..=max);
                let check = apply_if_some(check, lengths, UdpCheck::reply_lengths);
                TimedCheck::new(apply_duration_if_some(
                    check,
                    self.listen_for.take(),
                    UdpCheck::listen_for,
                ))
            }
        })
    }

    /// Takes the bytes to send, as text or in hexadecimal digits.
    fn take_payload(&mut self) -> Result<Option<Vec<u8>>, ConfigProblem> {
        match (self.send.take(), self.send_bytes.take()) {
            (Some(_), Some(_)) => {
                Err("`send` and `send_bytes` exclude each other").with_key("send_bytes")
            }
            (Some(text), None) => Ok(Some(text.into_bytes())),
            (None, bytes) => Ok(bytes.map(|HexSecret(bytes)| bytes)),
        }
    }

    fn build_command_check(&mut self) -> Result<CommandCheck, ConfigProblem> {
        let program = self
            .command
            .take()
            .ok_or("checks of type \"command\" require `command`")
            .with_key("command")?;
        let check = CommandCheck::new(program).args(self.arguments.take().unwrap_or_default());
        let variables = self.environment.take().unwrap_or_default();
        let check =
            variables.into_iter().fold(check, |check, (name, value)| check.env(name, value));
        let check = match (self.user.take(), self.group.take()) {
            (None, None) => check,
            (Some(user), group) => {
                check.run_as(apply_if_some(ProgramUser::new(user), group, ProgramUser::group))
            }
            (None, Some(_)) => return Err("`group` requires `user`").with_key("group"),
        };
        Ok(if self.dynamic.take().unwrap_or_default() { check.dynamic() } else { check })
    }

    fn build_dns_check(&mut self) -> Result<DnsCheck, ConfigProblem> {
        let kind = self.record_type.take();
        let check = match self.name.take() {
            Some(name) => {
                let check = DnsCheck::query(&name, kind.as_deref().unwrap_or("A"));
                check.map_err(|error| {
                    let key = match error {
                        DnsCheckError::Type { .. } => "record_type",
                        _ => "name",
                    };
                    ConfigProblem::at_key(key, error.to_string())
                })?
            }
            None if kind.is_none() => DnsCheck::new(),
            None => return Err("`record_type` requires `name`").with_key("record_type"),
        };
        let codes = self.accept_codes.take().map(CodeRanges::checked).transpose();
        let codes = codes.with_key("accept_codes")?.map(|codes| codes.into_iter().flatten());
        let check = apply_if_some(check, codes, DnsCheck::accept_codes);
        let check = apply_if_some(check, self.address.take(), DnsCheck::expect_address);
        match self.record.take() {
            Some(data) => check.expect_record(&data).with_key("record"),
            None => Ok(check),
        }
    }

    fn build_file_check(&mut self) -> Result<FileCheck, ConfigProblem> {
        let path =
            self.file.take().ok_or("checks of type \"file\" require `file`").with_key("file")?;
        let check = match self.exists.take().unwrap_or_default() {
            true => FileCheck::exists(path),
            false => apply_if_some(FileCheck::value(path), self.weight.take(), FileCheck::weight),
        };
        Ok(if self.reversed.take().unwrap_or_default() { check.reversed() } else { check })
    }

    fn build_http_check(&mut self) -> Result<HttpCheck, ConfigProblem> {
        let method = self.method.take().unwrap_or_else(|| "GET".to_owned());
        let path = self.path.take().unwrap_or_else(|| "/".to_owned());
        let mut check = HttpCheck::new(&method, &path).map_err(|error| {
            let key = match error {
                HttpCheckError::Method { .. } => "method",
                _ => "path",
            };
            ConfigProblem::at_key(key, error.to_string())
        })?;
        for (name, value) in self.headers.take().unwrap_or_default() {
            check = check.header(&name, &value).with_key("headers")?;
        }
        let statuses =
            self.status.take().map(CodeRanges::checked).transpose().with_key("status")?;
        check = statuses.unwrap_or_default().into_iter().fold(check, HttpCheck::accept_status);
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

    fn take_tls(&mut self) -> Result<Option<TlsSettings>, ConfigProblem> {
        let Some(config) = self.tls.take() else { return Ok(None) };
        let tls = config.to_tls();
        tls.map(Some).map_err(|problem| problem.prefixed(&[KeyPathSegment::Key("tls")]))
    }
}
