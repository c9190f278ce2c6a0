//! The checks over a TCP stream, each against servers that misbehave.

use std::time::Duration;

use lvs::backend::{AgentOverride, AgentWeight, BackendAdminState};
use lvs::health::{
    AgentCheck, Check, CheckContext, CheckFailureKind, CheckProxyHeader, CheckReport, MysqlCheck,
    PostgresCheck, RedisCheck, SmtpCheck, TcpCheck, UdpCheck,
};

use crate::world::{GARBAGE, LONG, Script, ask, assert_fails, refusing, run, run_out_of_time};

/// Tests a check against misbehaving servers: `first` is its stage after connecting, and `half` the
/// beginning of an answer in that stage.
async fn misbehaviour(check: &impl Check, first: &str, half: &str, garbage: CheckFailureKind) {
    assert_fails(run(check, refusing(), LONG).await, CheckFailureKind::Refused, "connecting");
    let stalls = Script::new().sends(half).stalls().await;
    let failure = run_out_of_time(check, stalls.address, first).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, first);
    let resets = Script::new().resets().await;
    let failure = run(check, resets.address, LONG).await.expect_err("the connection was reset");
    assert!(
        [CheckFailureKind::Reset, CheckFailureKind::Closed].contains(&failure.kind()),
        "{failure}"
    );
    let closes = Script::new().sends(half).closes().await;
    assert_fails(run(check, closes.address, LONG).await, CheckFailureKind::Closed, "closed");
    let trickles = Script::new().trickles(half).await;
    let answer = run_out_of_time(check, trickles.address, first).await;
    assert!(
        [
            CheckFailureKind::Timeout,
            CheckFailureKind::Protocol,
            CheckFailureKind::Mismatch,
            CheckFailureKind::TooLong
        ]
        .contains(&answer.kind()),
        "{answer}"
    );
    let endless = Script::new().never_ends(GARBAGE).await;
    let failure = run(check, endless.address, LONG).await.expect_err("garbage");
    assert_eq!(failure.kind(), garbage, "{failure}");
    assert!(endless.bytes_sent() < 2 << 20, "{} bytes", endless.bytes_sent());
}

#[tokio::test]
async fn tcp() {
    let check = TcpCheck::new().send("hello\n").expect("well\n");
    misbehaviour(&check, "waiting for the expected bytes", "we", CheckFailureKind::Mismatch).await;
    let server = Script::new().receives("hello\n").sends("well\nbye\n").stalls().await;
    assert_eq!(run(&check, server.address, LONG).await, Ok(CheckReport::up()));
    let within = TcpCheck::new().send("hello\n").expect_within("bye");
    assert_eq!(run(&within, server.address, LONG).await, Ok(CheckReport::up()));
    let endless = Script::new().never_ends("x").await;
    assert_fails(run(&within, endless.address, LONG).await, CheckFailureKind::TooLong, "16384");
    let other = TcpCheck::new().send("hello\n").expect("bye");
    let answer = run(&other, server.address, LONG).await;
    assert_fails(
        answer,
        CheckFailureKind::Mismatch,
        r#"answer "well\nbye\n", expected an answer beginning with "bye""#,
    );
}

/// Redis Sentinel, proxies and others do not know the command that ends a session.
#[tokio::test]
async fn a_server_that_answers_is_up_however_the_session_ends() {
    let redis = || Script::new().receives("PING\r\n").sends("+PONG\r\n").receives("QUIT\r\n");
    let check = RedisCheck::new();
    let stalls = redis().sends("-ERR unknown command 'QUIT'\r\n").stalls().await;
    assert_eq!(run(&check, stalls.address, LONG).await, Ok(CheckReport::up()));
    let resets = redis().resets().await;
    assert_eq!(run(&check, resets.address, LONG).await, Ok(CheckReport::up()));
    let endless = redis().never_ends(GARBAGE).await;
    assert_eq!(run(&check, endless.address, LONG).await, Ok(CheckReport::up()));
    let smtp = Script::new().sends("220 mx\r\n").receives("\r\n").sends("250 mx\r\n");
    let check = SmtpCheck::new().helo_name("test").expect("a name");
    let server = smtp.receives("QUIT\r\n").stalls().await;
    assert_eq!(run(&check, server.address, LONG).await, Ok(CheckReport::up()));
    let postgres = Script::new().receives("\0\0").sends("R\0\0\0\x08\0\0\0\0").stalls().await;
    assert_eq!(run(&PostgresCheck::new(), postgres.address, LONG).await, Ok(CheckReport::up()));
}

#[tokio::test]
async fn a_check_sends_the_proxy_header_first() {
    for (header, ends) in [
        (CheckProxyHeader::V2, "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0*1\r\n$4\r\nPING\r\n"),
        (CheckProxyHeader::V1, "\r\n*1\r\n$4\r\nPING\r\n"),
    ] {
        let server = Script::new().receives(ends).sends("+PONG\r\n").closes().await;
        let context = CheckContext::new("server".into(), server.address).with_proxy_header(header);
        assert_eq!(ask(&RedisCheck::new(), &context, LONG).await, Ok(CheckReport::up()));
    }
}

#[tokio::test]
async fn a_source_address_that_cannot_be_used_is_named() {
    let context = |source: &str| {
        CheckContext::new("server".into(), refusing()).with_source(source.parse().expect("one"))
    };
    let check = TcpCheck::new();
    let answer = ask(&check, &context("::1"), LONG).await;
    let words = "source address ::1 is not of the family of 127.";
    assert_fails(answer, CheckFailureKind::Local, words);
    let answer = ask(&check, &context("192.0.2.1"), LONG).await;
    assert_fails(answer, CheckFailureKind::Local, "using source address 192.0.2.1: ");
    let answer = ask(&UdpCheck::new(), &context("192.0.2.1"), LONG).await;
    assert_fails(answer, CheckFailureKind::Local, "using source address 192.0.2.1: ");
}

#[tokio::test]
async fn smtp() {
    let check = SmtpCheck::new().helo_name("test").expect("a name");
    misbehaviour(&check, "waiting for the banner", "220-m", CheckFailureKind::Protocol).await;
    let sends = |answer: &str| {
        Script::new().sends("220-mx\r\n220 mx\r\n").receives("EHLO test\r\n").sends(answer)
    };
    let server =
        sends("250-mx\r\n250 SIZE\r\n").receives("QUIT\r\n").sends("221 bye\r\n").closes().await;
    assert_eq!(run(&check, server.address, LONG).await, Ok(CheckReport::up()));
    let old = sends("502 what?\r\n").receives("HELO test\r\n").sends("250 mx\r\n").closes().await;
    assert_eq!(run(&check, old.address, LONG).await, Ok(CheckReport::up()));
    let busy = Script::new().sends("421 too busy\r\n").closes().await;
    assert_fails(
        run(&check, busy.address, LONG).await,
        CheckFailureKind::Mismatch,
        "421 \"too busy\"",
    );
    let mixed = sends("250-mx\r\n251 x\r\n").stalls().await;
    assert_fails(
        run(&check, mixed.address, LONG).await,
        CheckFailureKind::Protocol,
        "has a line of another code: \"251 x\"",
    );
    let endless = sends("").never_ends("250-again\r\n").await;
    assert_fails(run(&check, endless.address, LONG).await, CheckFailureKind::TooLong, "16384");
}

#[tokio::test]
async fn redis() {
    let check = RedisCheck::new().master();
    let waiting = "waiting for the answer to PING";
    misbehaviour(&check, waiting, "+PON", CheckFailureKind::Protocol).await;
    let pong = || Script::new().receives("PING\r\n").sends("+PONG\r\n").receives("replication\r\n");
    let server =
        pong().sends("$11\r\nrole:master\r\n").receives("QUIT\r\n").sends("+OK\r\n").closes();
    assert_eq!(run(&check, server.await.address, LONG).await, Ok(CheckReport::up()));
    let replica = pong().sends("$10\r\nrole:slave\r\n").stalls().await;
    let answer = run(&check, replica.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "the server is a replica, expected a master");
    let loading = Script::new().receives("PING\r\n").sends("-LOADING wait\r\n").stalls().await;
    assert_fails(
        run(&check, loading.address, LONG).await,
        CheckFailureKind::Mismatch,
        "LOADING wait",
    );
    let huge = pong().sends("$999999999\r\n").never_ends("role").await;
    assert_fails(run(&check, huge.address, LONG).await, CheckFailureKind::TooLong, "16384");
}

/// The ends of lines are those that HAProxy's checks of these names accept.
#[tokio::test]
async fn lines_end_as_haproxy_requires() {
    let redis = async |answer: &str| {
        let server = Script::new().receives("PING\r\n").sends(answer).stalls().await;
        run(&RedisCheck::new(), server.address, LONG).await
    };
    let words = r#"the answer to PING ends without CR LF: "+PONG""#;
    assert_fails(redis("+PONG\n").await, CheckFailureKind::Protocol, words);
    assert_eq!(redis("+PONG\r\n").await, Ok(CheckReport::up()));
    let login = RedisCheck::new().password("secret").master();
    for (answers, command) in [
        (["+OK\n", "+PONG\r\n", "$11\r\nrole:master\r\n"], "AUTH"),
        (["+OK\r\n", "+PONG\r\n", "$11\nrole:master\r\n"], "INFO"),
    ] {
        let [auth, pong, info] = answers;
        let script = Script::new().receives("secret\r\n").sends(auth).receives("PING\r\n");
        let server = script.sends(pong).receives("replication\r\n").sends(info).stalls().await;
        let words = format!("the answer to {command} ends without CR LF");
        let answer = run(&login, server.address, LONG).await;
        assert_fails(answer, CheckFailureKind::Protocol, &words);
    }

    let check = SmtpCheck::new().helo_name("test").expect("a name");
    let smtp = async |banner: &str, answer: &str| {
        let script = Script::new().sends(banner).receives("EHLO test\r\n").sends(answer);
        run(&check, script.stalls().await.address, LONG).await
    };
    assert_eq!(smtp("220 mx\n", "250 mx\n").await, Ok(CheckReport::up()));
    assert_eq!(smtp("220\r\n", "250-SIZE\r\n250 mx\n").await, Ok(CheckReport::up()));
    let protocol = CheckFailureKind::Protocol;
    assert_fails(smtp("220\n", "").await, protocol, "waiting for the banner: not an SMTP reply");
    let words = r#"answer to EHLO: not an SMTP reply: "250-SIZE""#;
    assert_fails(smtp("220 mx\n", "250-SIZE\n250 mx\n").await, protocol, words);

    for line in ["up\n", "up\r\n", "up\r", "up\rdown\n"] {
        let server = Script::new().sends(line).stalls().await;
        let answer = run(&AgentCheck::new().required(), server.address, LONG).await;
        assert_eq!(answer, Ok(CheckReport::up()), "{line:?}");
    }
}

#[tokio::test]
async fn postgres() {
    let check = PostgresCheck::new();
    let waiting = "waiting for the answer to the startup message";
    misbehaviour(&check, waiting, "R\0\0", CheckFailureKind::Protocol).await;
    let asked = || Script::new().receives("lvs\0\0");
    let password = asked().sends("R\0\0\0\x08\0\0\0\x03").stalls().await;
    assert_eq!(run(&check, password.address, LONG).await, Ok(CheckReport::up()));
    let error = |body: &str| {
        let length = (body.len() as u32 + 4).to_be_bytes();
        asked().sends([&b"E"[..], &length, body.as_bytes()].concat()).closes()
    };
    let unknown = error("SFATAL\0C28000\0Mno such user\0\0").await;
    assert_eq!(run(&check, unknown.address, LONG).await, Ok(CheckReport::up()));
    let starting = error("SFATAL\0C57P03\0Mthe database system is starting up\0\0").await;
    let answer = run(&check, starting.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "is starting up\" (SQLSTATE \"57P03\")");
}

#[tokio::test]
async fn mysql() {
    let check = MysqlCheck::new();
    let first = "waiting for the greeting";
    misbehaviour(&check, first, "\x40\0\0\0\x0a5.", CheckFailureKind::Protocol).await;
    let blocked = b"\x13\0\0\0\xff\x69\x04Host is blocked!";
    let blocked = Script::new().sends(blocked).closes().await;
    let answer = run(&check, blocked.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "Host is blocked!\" (error 1129");
}

#[tokio::test]
async fn agent() {
    let check = AgentCheck::new().required();
    misbehaviour(&check, "waiting for the agent's line", "", CheckFailureKind::Protocol).await;
    let answer = async |check: &AgentCheck, line: &str| {
        let server = Script::new().sends(line).closes().await;
        run(check, server.address, LONG).await
    };
    let sends = async |line: &str| answer(&check, line).await;
    let report = sends("up 75% maxconn:30 drain\n").await.expect("up");
    assert_eq!(report.agent_override().weight, Some(AgentWeight::Percent(75)));
    assert_eq!(report.agent_override().max_connections, Some(30));
    assert_eq!(report.agent_override().admin, Some(BackendAdminState::Draining));
    assert!(sends("ready").await.is_ok(), "the end of the connection ends the line");
    let failure = sends("down 10% # disk full\n").await.expect_err("down");
    assert_eq!(failure.agent_override().weight, Some(AgentWeight::Percent(10)));
    assert_fails(Err(failure), CheckFailureKind::Mismatch, "disk full");
    assert_fails(
        sends("hello\n").await,
        CheckFailureKind::Protocol,
        "the agent's line has no known word: \"hello\"",
    );
    let asked = Script::new().receives("web\n").sends("up\n").stalls().await;
    let asking = AgentCheck::new().send("web\n");
    assert_eq!(run(&asking, asked.address, LONG).await, Ok(CheckReport::up()));
    let endless = Script::new().never_ends("up ").await;
    assert_fails(run(&check, endless.address, LONG).await, CheckFailureKind::TooLong, "16384");

    // By default an agent decides by what it says only.
    let advisory = AgentCheck::new();
    let unheard = |problem: &str| {
        Ok(CheckReport::unchanged().with_warning(format!("the agent is not heard: {problem}")))
    };
    let line = "the agent's line has no known word: \"hello\"";
    assert_eq!(answer(&advisory, "hello\n").await, unheard(line));
    let gone = run(&advisory, refusing(), LONG).await.expect("no failure");
    assert!(gone.warning().is_some_and(|text| text.contains("refused")), "{gone:?}");
    assert_eq!(answer(&advisory, "UP\n").await, Ok(CheckReport::up()));
    let report = answer(&advisory, "75%\n").await.expect("no failure");
    let weight = AgentOverride { weight: Some(AgentWeight::Percent(75)), ..Default::default() };
    assert_eq!(report, CheckReport::unchanged().with_agent_override(weight));
    assert_fails(
        answer(&advisory, "FAIL # disk full\n").await,
        CheckFailureKind::Mismatch,
        "disk full",
    );
    let silent = Script::new().stalls().await;
    let context = CheckContext::new("server".into(), silent.address);
    tokio::time::timeout(Duration::from_millis(50), advisory.check(&context))
        .await
        .expect_err("the agent never answers");
    assert_eq!(Ok(context.report().expect("known")), unheard("no answer within the timeout"));
}
