//! The checks over a TCP stream, each against servers that misbehave.

use lvs::backend::{AgentWeight, BackendAdminState};
use lvs::health::{
    AgentCheck, Check, CheckFailureKind, CheckReport, MysqlCheck, PostgresCheck, RedisCheck,
    SmtpCheck, TcpCheck,
};

use crate::world::{GARBAGE, LONG, Script, assert_fails, refusing, run, run_out_of_time};

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
    let check = AgentCheck::new();
    misbehaviour(&check, "waiting for the agent's line", "", CheckFailureKind::Protocol).await;
    let sends = async |line: &str| {
        let server = Script::new().sends(line).closes().await;
        run(&check, server.address, LONG).await
    };
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
}
