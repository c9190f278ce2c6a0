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
    let stalls = Script::new().says(half).stalls().await;
    let failure = run_out_of_time(check, stalls.address, first).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, first);
    let resets = Script::new().resets().await;
    let failure = run(check, resets.address, LONG).await.expect_err("it was reset");
    assert!(
        [CheckFailureKind::Reset, CheckFailureKind::Closed].contains(&failure.kind()),
        "{failure}"
    );
    let closes = Script::new().says(half).closes().await;
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
    assert!(endless.said() < 2 << 20, "{} bytes", endless.said());
}

#[tokio::test]
async fn tcp() {
    let check = TcpCheck::new().send("hello\n").expect("well\n");
    misbehaviour(&check, "waiting for the expected bytes", "we", CheckFailureKind::Mismatch).await;
    let server = Script::new().hears("hello\n").says("well\nbye\n").stalls().await;
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
    let says = |answer: &str| {
        Script::new().says("220-mx\r\n220 mx\r\n").hears("EHLO test\r\n").says(answer)
    };
    let server =
        says("250-mx\r\n250 SIZE\r\n").hears("QUIT\r\n").says("221 bye\r\n").closes().await;
    assert_eq!(run(&check, server.address, LONG).await, Ok(CheckReport::up()));
    let old = says("502 what?\r\n").hears("HELO test\r\n").says("250 mx\r\n").closes().await;
    assert_eq!(run(&check, old.address, LONG).await, Ok(CheckReport::up()));
    let busy = Script::new().says("421 too busy\r\n").closes().await;
    assert_fails(
        run(&check, busy.address, LONG).await,
        CheckFailureKind::Mismatch,
        "421 \"too busy\"",
    );
    let mixed = says("250-mx\r\n251 x\r\n").stalls().await;
    assert_fails(
        run(&check, mixed.address, LONG).await,
        CheckFailureKind::Protocol,
        "has a line of another code: \"251 x\"",
    );
    let endless = says("").never_ends("250-again\r\n").await;
    assert_fails(run(&check, endless.address, LONG).await, CheckFailureKind::TooLong, "16384");
}

#[tokio::test]
async fn redis() {
    let check = RedisCheck::new().master();
    let waiting = "waiting for the answer to PING";
    misbehaviour(&check, waiting, "+PON", CheckFailureKind::Protocol).await;
    let pong = || Script::new().hears("PING\r\n").says("+PONG\r\n").hears("replication\r\n");
    let server = pong().says("$11\r\nrole:master\r\n").hears("QUIT\r\n").says("+OK\r\n").closes();
    assert_eq!(run(&check, server.await.address, LONG).await, Ok(CheckReport::up()));
    let replica = pong().says("$10\r\nrole:slave\r\n").stalls().await;
    let answer = run(&check, replica.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "the server is a replica, expected a master");
    let loading = Script::new().hears("PING\r\n").says("-LOADING wait\r\n").stalls().await;
    assert_fails(
        run(&check, loading.address, LONG).await,
        CheckFailureKind::Mismatch,
        "LOADING wait",
    );
    let huge = pong().says("$999999999\r\n").never_ends("role").await;
    assert_fails(run(&check, huge.address, LONG).await, CheckFailureKind::TooLong, "16384");
}

#[tokio::test]
async fn postgres() {
    let check = PostgresCheck::new();
    let waiting = "waiting for the answer to the startup message";
    misbehaviour(&check, waiting, "R\0\0", CheckFailureKind::Protocol).await;
    let asked = || Script::new().hears("lvs\0\0");
    let password = asked().says("R\0\0\0\x08\0\0\0\x03").stalls().await;
    assert_eq!(run(&check, password.address, LONG).await, Ok(CheckReport::up()));
    let error = |body: &str| {
        let length = (body.len() as u32 + 4).to_be_bytes();
        asked().says([&b"E"[..], &length, body.as_bytes()].concat()).closes()
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
    let blocked = Script::new().says(blocked).closes().await;
    let answer = run(&check, blocked.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "Host is blocked!\" (error 1129");
}

#[tokio::test]
async fn agent() {
    let check = AgentCheck::new();
    misbehaviour(&check, "waiting for the agent's line", "", CheckFailureKind::Protocol).await;
    let says = async |line: &str| {
        let server = Script::new().says(line).closes().await;
        run(&check, server.address, LONG).await
    };
    let report = says("up 75% maxconn:30 drain\n").await.expect("up");
    assert_eq!(report.agent_override().weight, Some(AgentWeight::Percent(75)));
    assert_eq!(report.agent_override().max_connections, Some(30));
    assert_eq!(report.agent_override().admin, Some(BackendAdminState::Draining));
    assert!(says("ready").await.is_ok(), "the end of the connection ends the line");
    let failure = says("down 10% # disk full\n").await.expect_err("down");
    assert_eq!(failure.agent_override().weight, Some(AgentWeight::Percent(10)));
    assert_fails(Err(failure), CheckFailureKind::Mismatch, "disk full");
    assert_fails(
        says("hello\n").await,
        CheckFailureKind::Protocol,
        "the agent's line has no known word: \"hello\"",
    );
    let asked = Script::new().hears("web\n").says("up\n").stalls().await;
    let asking = AgentCheck::new().send("web\n");
    assert_eq!(run(&asking, asked.address, LONG).await, Ok(CheckReport::up()));
    let endless = Script::new().never_ends("up ").await;
    assert_fails(run(&check, endless.address, LONG).await, CheckFailureKind::TooLong, "16384");
}
