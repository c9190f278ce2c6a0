//! Real mail and database servers.

use std::process::Command;

use lvs::health::{
    Check, CheckFailureKind, CheckReport, MysqlCheck, PostgresCheck, RedisCheck, SmtpCheck,
    TcpCheck,
};

use crate::world::{
    Folder, LONG, Server, as_user, assert_fails, complete, free_address, program, run,
    run_out_of_time,
};

/// Checks a server that is stopped, which does not answer, and one that was killed, which refuses.
async fn freeze_and_kill(
    mut server: Server,
    check: &impl Check,
    address: std::net::SocketAddr,
    stage: &str,
) {
    server.freeze();
    let failure = run_out_of_time(check, address, stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);
    server.kill();
    assert_fails(run(check, address, LONG).await, CheckFailureKind::Refused, "connecting");
}

#[tokio::test]
async fn a_redis_server() {
    let Some(program) = program("redis-server", "redis-server") else { return };
    let (folder, address) = (Folder::new(), free_address());
    let mut command = Command::new(program);
    command.current_dir(folder.path());
    command.args(["--port", &address.port().to_string(), "--bind", &address.ip().to_string()]);
    command.args(["--requirepass", "secret", "--save", "", "--appendonly", "no"]);
    let mut server = Server::spawn(&mut command, &folder);
    let check = RedisCheck::new().password("secret").master();
    assert_eq!(server.answers(&check, address).await, CheckReport::up());
    let replica = RedisCheck::new().user("default").password("secret").replica();
    let answer = run(&replica, address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "the server is a master, expected a replica");
    let answer = run(&RedisCheck::new(), address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "NOAUTH");
    let wrong = RedisCheck::new().password("wrong");
    assert_fails(run(&wrong, address, LONG).await, CheckFailureKind::Mismatch, "WRONGPASS");
    let by_hand = TcpCheck::new().send("AUTH secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    assert_eq!(run(&by_hand, address, LONG).await, Ok(CheckReport::up()));
    freeze_and_kill(server, &check, address, "waiting for the answer to AUTH").await;
}

#[tokio::test]
async fn a_postgresql_server() {
    let (Some(initdb), Some(postgres)) =
        (program("initdb", "postgresql"), program("postgres", "postgresql"))
    else {
        return;
    };
    let (folder, address) = (Folder::of("postgres"), free_address());
    let data = folder.path().join("data").display().to_string();
    let sockets = folder.path().display().to_string();
    complete(as_user(
        Command::new(initdb).args(["-D", &data, "-A", "trust", "-U", "owner", "-N"]),
        "postgres",
    ));
    let mut command = Command::new(postgres);
    command.args(["-D", &data, "-k", &sockets, "-h", &address.ip().to_string()]);
    command.args(["-p", &address.port().to_string(), "-c", "max_connections=4"]);
    command.args(["-c", "superuser_reserved_connections=0", "-c", "max_wal_senders=0"]);
    let mut server = Server::spawn(as_user(&mut command, "postgres"), &folder);
    let check = PostgresCheck::new();
    assert_eq!(server.answers(&check, address).await, CheckReport::up());
    let named = PostgresCheck::new().user("owner").and_then(|check| check.database("postgres"));
    let named = named.expect("names");
    assert_eq!(run(&named, address, LONG).await, Ok(CheckReport::up()));
    let stage = "waiting for the answer to the startup message";
    freeze_and_kill(server, &check, address, stage).await;
}

#[tokio::test]
async fn a_mariadb_server() {
    let (Some(install), Some(mariadbd)) =
        (program("mariadb-install-db", "mariadb-server"), program("mariadbd", "mariadb-server"))
    else {
        return;
    };
    let (folder, address) = (Folder::of("mysql"), free_address());
    let data = format!("--datadir={}", folder.path().join("data").display());
    complete(as_user(
        Command::new(install).args([
            "--no-defaults",
            &data,
            "--auth-root-authentication-method=normal",
        ]),
        "mysql",
    ));
    let mut command = Command::new(mariadbd);
    command.args(["--no-defaults", &data, "--max-connect-errors=1"]);
    command.arg(format!("--bind-address={}", address.ip()));
    command.arg(format!("--port={}", address.port()));
    command.arg(format!("--socket={}", folder.path().join("socket").display()));
    command.arg(format!("--pid-file={}", folder.path().join("pid").display()));
    let mut server = Server::spawn(as_user(&mut command, "mysql"), &folder);
    let check = MysqlCheck::new();
    assert_eq!(server.answers(&check, address).await, CheckReport::up());
    // The server would block this address at the first aborted login.
    for _ in 0..5 {
        assert_eq!(run(&check, address, LONG).await, Ok(CheckReport::up()));
    }
    let greeting = MysqlCheck::new().greeting_only();
    assert_eq!(run(&greeting, address, LONG).await, Ok(CheckReport::up()));
    freeze_and_kill(server, &check, address, "waiting for the greeting").await;
}

#[tokio::test]
async fn a_mail_server() {
    let Some(program) = program("smtp-sink", "postfix") else { return };
    let (folder, address) = (Folder::new(), free_address());
    let mut command = Command::new(program);
    // As root, smtp-sink requires a user to run as.
    if rustix::process::getuid().is_root() {
        command.args(["-u", "nobody"]);
    }
    command.args([&address.to_string(), "10"]);
    let mut server = Server::spawn(&mut command, &folder);
    let check = SmtpCheck::new();
    assert_eq!(server.answers(&check, address).await, CheckReport::up());
    freeze_and_kill(server, &check, address, "waiting for the banner").await;
}
