//! The `health` tables, and the `check` of a tracked item.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::check_tls::CheckTlsConfig;
use super::custom::CustomCheck;
use super::table::config_table;
use super::value::{
    CodeRanges, FromText, HexSecret, HumanDuration, LengthRange, OneOrMany, SecretString,
    StringTable,
};
use crate::backend::Health;
use crate::health::{BytePattern, Check, InitialHealth};

/// The protocol or means of a check.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckKind {
    /// Connects by TCP and reads the line of an agent, as HAProxy's `agent-check`: state, weight and
    /// connection limit of the server. Keys: `send`, `send_bytes`, `agent_required`.
    Agent,
    /// Runs a program; the exit code 0 means up, as keepalived's `MISC_CHECK`. Keys: `command`,
    /// `arguments`, `environment`, `user`, `group`, `dynamic`.
    Command,
    /// A check that the program has made.
    #[serde(skip)]
    Custom(CustomCheck),
    /// Queries a name server. Keys: `name`, `record_type`, `accept_codes`, `address`, `record`.
    Dns,
    /// Reads a file of this machine, as keepalived's `FILE_CHECK`. Keys: `file`, `exists`,
    /// `weight`, `reversed`.
    File,
    /// Calls the standard gRPC health service; `SERVING` means up. Keys: `service`, `authority`,
    /// `tls`.
    Grpc,
    /// Sends an HTTP request; interim responses (1xx) are skipped, and a body that is read must be
    /// complete. Keys: `method`, `path`, `headers`, `status`, `body`, `body_not`, `body_digest`,
    /// `body_limit`, `http2`, `tls`.
    Http,
    /// Logs in to a MySQL or MariaDB server without a password; a refused login means up too. Keys:
    /// `user`, `greeting_only`.
    Mysql,
    /// Sends an ICMP echo request.
    Ping,
    /// Starts a session of a PostgreSQL server or pooler; a request for a password means up, and so
    /// does an error about the user or the database. Keys: `user`, `database`.
    Postgres,
    /// Sends `PING` to a Redis server. Keys: `user`, `password`, `role`.
    Redis,
    /// Greets a mail server with `EHLO`; requires the codes 220 and 250, as keepalived. Keys:
    /// `helo_name`.
    Smtp,
    /// Connects by TCP. Keys: `send`, `send_bytes`, `expect`, `expect_within`.
    Tcp,
    /// Makes a TLS handshake. Keys: `tls`.
    Tls,
    /// Sends a datagram; without a required reply, everything but an ICMP error means up. Keys:
    /// `send`, `send_bytes`, `expect_bytes`, `reply_lengths`, `listen_for`.
    Udp,
}

/// Defines a single table for all types of checks, so that an error names the line of its key. The
/// builder takes the keys of the check's type; a key that is left belongs to another type.
macro_rules! check_config {
    ($(#[$doc:meta])* {
        $(#[$kind_meta:meta])*
        $kind:ident: $kind_type:ty;
        $(
            $(#[doc = $key_doc:literal])*
            $key:ident: $type:ident $(<$argument:ident>)?,
        )*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
        #[serde(deny_unknown_fields, expecting = "a table", remote = "Self")]
        pub struct CheckConfig {
            $(#[$kind_meta])*
            pub(super) $kind: $kind_type,
            $($(#[doc = $key_doc])* pub(super) $key: Option<$type $(<$argument>)?>,)*
        }

        impl CheckConfig {
            /// Returns the first key, other than `type`, that has a value.
            pub(super) fn first_key(&self) -> Option<&'static str> {
                $(if self.$key.is_some() {
                    return Some(stringify!($key));
                })*
                None
            }

            /// Makes a check of this kind without any other key.
            fn of_kind($kind: $kind_type) -> CheckConfigBuilder {
                CheckConfigBuilder { table: Self { $kind, $($key: None,)* } }
            }
        }

        config_table! { @deserialize CheckConfig }
        config_table! {
            @builder [
                /// A builder of a [`CheckConfig`].
            ] CheckConfigBuilder CheckConfig
            $([$(#[doc = $key_doc])*] [] $key (Option $type $($argument)?))*
        }
    };
}

check_config! {
    /// A health check of each server, or of the item that a virtual router tracks.
    ///
    /// A key that the check's `type` does not use is an error. A reload that changes a check replaces
    /// all checks of the service; the servers keep their state until new results come.
    {
    /// The protocol or means of the check.
    #[serde(rename = "type")]
    kind: CheckKind;
    /// The time from one check to the next, at least 1 ms. Default: `"2s"`.
    interval: HumanDuration,
    /// The interval while the state may be about to change: after a failure of a server that is up,
    /// or a success of a server that is down. Default: the value of `interval`.
    fast_interval: HumanDuration,
    /// The interval while the server is down. Default: the value of `interval`.
    down_interval: HumanDuration,
    /// The maximum time of a check, above 0 and at most the shortest of the intervals; a check that
    /// takes longer has failed. Default: the value of `interval` if it is set, otherwise `"1s"`.
    timeout: HumanDuration,
    /// The number of successes in a row that take the server up, at least 1. Default: `2`; `agent`: 1.
    rise: u32,
    /// The number of failures in a row that take the server down, at least 1. Default: `3`; `agent`: 1.
    fall: u32,
    /// By how much of its interval a check may start early at random, in percent, from 0 to 50.
    /// Default: `5`.
    jitter: u8,
    /// The state of a server before the first result, as HAProxy's `init-state`. `"up"` and `"down"`:
    /// the first result decides alone. `"fully-up"`: up until `fall` failures; `"fully-down"`: down
    /// until `rise` successes. A check that cannot run `fall` times before its first result takes the
    /// server down. Default: `"up"`.
    init: CheckInitConfig,
    /// The port to check. Default: the server's port.
    port: u16,
    /// The local address of the check, of the family of the servers' addresses. Default: chosen by the
    /// routing table.
    source: IpAddr,
    /// `dns`: the response codes that mean up, such as `"0, 3"` for NOERROR and NXDOMAIN. Default:
    /// `0`.
    accept_codes: CodeRanges,
    /// `agent`: an agent that does not answer, or says no known word, counts as a failure. Without, it
    /// leaves the state as it is, as in HAProxy. Default: `false`.
    agent_required: bool,
    /// `dns`: requires an A or AAAA record with this address in the response. Default: none.
    address: IpAddr,
    /// `command`: the arguments of the program. The variables `HAPROXY_SERVER_ADDR` and
    /// `HAPROXY_SERVER_PORT` of its environment name the server, so that `/bin/sh` with the arguments
    /// `["-c", "check.sh $HAPROXY_SERVER_ADDR $HAPROXY_SERVER_PORT"]` checks each server. Default:
    /// none.
    arguments: Vec<String>,
    /// `grpc`: the `:authority` of the request. Default: the server's address.
    authority: String,
    /// `http`: requires a body in which this regular expression matches. Default: none.
    body: String,
    /// `http`: requires a body of this digest: 64 hexadecimal digits are SHA-256, 32 are MD5, as
    /// keepalived's `genhash` prints. Default: none.
    body_digest: String,
    /// `http`: the maximum length in bytes of a body that is read for `body`, `body_not` or
    /// `body_digest`; a longer one has failed. Default: `65536`.
    body_limit: usize,
    /// `http`: requires a body in which this regular expression does not match. Default: none.
    body_not: String,
    /// `command`: the program, as a path or a name in `PATH`; required for the type.
    /// Default: none.
    command: PathBuf,
    /// `postgres`: the database of the session. Default: the server takes the user's name.
    database: String,
    /// `command`: an exit code from 2 to 255 means up, with the code minus 2 as the weight. Default:
    /// `false`.
    dynamic: bool,
    /// `command`: further environment variables. Default: none.
    environment: StringTable,
    /// `file`: the server is up while the file exists, whatever its content. Default: `false`.
    exists: bool,
    /// `tcp`: requires a response that begins with this text. Excludes `expect_within`. Default:
    /// none, nothing is read.
    expect: String,
    /// `udp`: requires a reply that begins with these bytes, in hexadecimal digits, where `x` stands
    /// for any digit; `""` requires a reply of any content. Default: none is required.
    expect_bytes: FromText<BytePattern>,
    /// `tcp`: requires this text within the first 16 KiB of the response. Replaces `expect`. Default:
    /// none, nothing is read.
    expect_within: String,
    /// `file`: the path of a file with a whole number: 0 means up, another number means down or is
    /// used by `weight`. Required for the type. Default: none.
    file: PathBuf,
    /// `mysql`: reads the greeting of the server without a login. Default: `false`.
    greeting_only: bool,
    /// `command`: the group that the program runs as, by name or number; requires `user`. Default:
    /// the user's own.
    group: String,
    /// `http`: further headers of the request. Default: `host` with the server's address.
    headers: StringTable,
    /// `smtp`: the name in the `EHLO` command. Default: the check's local address, as `[192.0.2.1]`.
    helo_name: String,
    /// `http`: uses HTTP/2: with `tls` by ALPN, without by prior knowledge. Default: `false`.
    http2: bool,
    /// `udp`: how long to wait for an ICMP error when no reply is required; below `timeout`.
    /// Default: `"250ms"`.
    listen_for: HumanDuration,
    /// `http`: the method of the request. Default: `"GET"`.
    method: String,
    /// `dns`: the name to query. Default: the root's SOA record is queried.
    name: String,
    /// `redis`: the password for `AUTH`. Default: none, the check does not log in.
    password: SecretString,
    /// `http`: the path of the request. Default: `"/"`.
    path: String,
    /// `dns`: requires a record with this data in the response, written as in a zone file. Default:
    /// none.
    record: String,
    /// `dns`: the type of the records to query for `name`, such as `"A"` or `"MX"`. Default: `"A"`.
    record_type: String,
    /// `udp`: requires a reply whose length in bytes is from the first to the second number.
    /// Default: any length.
    reply_lengths: LengthRange,
    /// `file`: a number other than 0 means up, and 0 down; with `exists`, a missing file means up;
    /// with `weight`, its sign is changed. Default: `false`.
    reversed: bool,
    /// `redis`: requires a server of this role. Default: any role.
    role: RedisRoleConfig,
    /// The PROXY header at the beginning of each TCP connection of the check: `"v1"`, `"v2"` (with the
    /// command LOCAL), or `"none"`. A server that expects the header refuses a connection without.
    /// Default: as `tcp.send_proxy` of the service, unless the check has a `port` of its own or is an
    /// `agent`, as in HAProxy.
    send_proxy: CheckProxyConfig,
    /// `agent`, `tcp`, `udp`: the text to send. Default: none; `udp` sends a zero byte.
    send: String,
    /// `agent`, `tcp`, `udp`: the bytes to send, in hexadecimal digits, in place of `send`. Default:
    /// none.
    send_bytes: HexSecret,
    /// `grpc`: the name of the service to ask for. Default: `""`, the server as a whole.
    service: String,
    /// `http`: the status codes that mean up, such as `200` or `"200-299, 404"`. Default:
    /// `"200-299"`.
    status: CodeRanges,
    /// `grpc`, `http`, `tls`: uses TLS, and sets which certificates are accepted. Default: none;
    /// `tls` uses an empty table.
    tls: CheckTlsConfig,
    /// `mysql`, `postgres`, `redis`: the user who logs in. `command`: the user that the program runs
    /// as, by name or number. Default: `"lvs"`; `redis`: the server's default user; `command`: the
    /// director's user.
    user: String,
    /// Connects to the virtual address, at the service's port or at `port`, on the server: by the server's
    /// own method, as the packets of clients do. So a server without the virtual address is down. For
    /// an engine in the kernel and servers with the method `dr` or `tunnel`; others are checked at their own
    /// addresses. With several `listen` addresses each is checked, one after the other, within `timeout`. Not
    /// for the types `command`, `file` and `ping`. Default: `false`.
    virtual_address: bool,
    /// `file`: adds the file's number times this to the server's weight; `0` means that the number
    /// is up or down. Default: `0`.
    weight: i32,
    }
}

/// The state of a server before the first result of a check.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CheckInitConfig {
    /// Up, and the first result decides alone.
    Up,
    /// Down, and the first result decides alone.
    Down,
    /// Up until `fall` failures.
    FullyUp,
    /// Down until `rise` successes.
    FullyDown,
}

impl From<InitialHealth> for CheckInitConfig {
    fn from(init: InitialHealth) -> Self {
        match init {
            InitialHealth::Up => Self::Up,
            InitialHealth::Down => Self::Down,
            InitialHealth::FullyUp => Self::FullyUp,
            InitialHealth::FullyDown => Self::FullyDown,
        }
    }
}

impl From<CheckInitConfig> for InitialHealth {
    fn from(init: CheckInitConfig) -> Self {
        match init {
            CheckInitConfig::Up => Self::Up,
            CheckInitConfig::Down => Self::Down,
            CheckInitConfig::FullyUp => Self::FullyUp,
            CheckInitConfig::FullyDown => Self::FullyDown,
        }
    }
}

/// The PROXY header that a check sends.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CheckProxyConfig {
    /// None, although the service sends one.
    None,
    /// Version 1, with the addresses of the check's connection.
    V1,
    /// Version 2 with the command LOCAL.
    V2,
}

/// The role of a Redis server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RedisRoleConfig {
    /// A server that has the data; its replicas copy them.
    Master,
    /// A server that copies the data of another one.
    Replica,
}

/// One constructor for each type of check; those of TOML have the names of the types.
impl CheckConfig {
    /// Returns a builder of a check by HAProxy's agent protocol.
    pub fn agent() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Agent)
    }

    /// Returns a builder of a check by a program.
    pub fn command(program: impl Into<PathBuf>) -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Command).command(program)
    }

    /// Returns a builder of a check that the program has made. The keys of time, `port` and `source`
    /// apply to it, and no others.
    ///
    /// A reload compares such checks by identity: a clone of the same builder has the same one. Another
    /// check replaces all checks of the service.
    pub fn custom(check: impl Check) -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Custom(CustomCheck::new(check)))
    }

    /// Returns a builder of a check that queries a name server.
    pub fn dns() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Dns)
    }

    /// Returns a builder of a check that reads a file.
    pub fn file(path: impl Into<PathBuf>) -> CheckConfigBuilder {
        Self::of_kind(CheckKind::File).file(path)
    }

    /// Returns a builder of a check by the gRPC health service.
    pub fn grpc() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Grpc)
    }

    /// Returns a builder of a check by an HTTP request for a path.
    pub fn http(path: impl Into<String>) -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Http).path(path)
    }

    /// Returns a builder of a check of a MySQL or MariaDB server.
    pub fn mysql() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Mysql)
    }

    /// Returns a builder of a check by an ICMP echo request.
    pub fn ping() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Ping)
    }

    /// Returns a builder of a check of a PostgreSQL server.
    pub fn postgres() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Postgres)
    }

    /// Returns a builder of a check of a Redis server.
    pub fn redis() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Redis)
    }

    /// Returns a builder of a check of a mail server.
    pub fn smtp() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Smtp)
    }

    /// Returns a builder of a check that connects.
    pub fn tcp() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Tcp)
    }

    /// Returns a builder of a check by a TLS handshake.
    pub fn tls() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Tls)
    }

    /// Returns a builder of a check by a datagram.
    pub fn udp() -> CheckConfigBuilder {
        Self::of_kind(CheckKind::Udp)
    }

    /// Returns the health of a server that none of these checks has a result of.
    pub(super) fn initial_health_of(OneOrMany(checks): &OneOrMany<Self>) -> Health {
        let mut inits = checks.iter().filter_map(Self::initial_health);
        match inits.any(|init| init.health() == Health::Down) {
            true => Health::Down,
            false => Health::Up,
        }
    }

    /// Returns the health of a server before the first result, if the check sets it.
    fn initial_health(&self) -> Option<InitialHealth> {
        match &self.kind {
            CheckKind::Custom(CustomCheck(check)) if self.init.is_none() => {
                Some(check.initial_health())
            }
            _ => self.init.map(Into::into),
        }
    }

    /// Returns how an error names the check among others.
    pub(super) fn label(&self) -> Option<String> {
        self.name.clone().or_else(|| self.address.map(|address| address.to_string()))
    }
}
