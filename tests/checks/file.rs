//! The file check, on files that are well, missing, odd and without end.

use std::fs;
use std::path::Path;

use lvs::backend::AgentWeight;
use lvs::health::{CheckFailure, CheckFailureKind, CheckReport, FileCheck};

use crate::world::{Folder, LONG, assert_fails, complete, run};

async fn check(check: &FileCheck) -> Result<CheckReport, CheckFailure> {
    run(check, ([127, 0, 0, 1], 80).into(), LONG).await
}

#[tokio::test]
async fn a_number_is_followed() {
    let folder = Folder::new();
    let path = folder.path().join("value");
    let (plain, weighted) = (FileCheck::value(&path), FileCheck::value(&path).weight(-10));
    assert_fails(check(&plain).await, CheckFailureKind::Mismatch, "value does not exist");
    assert_fails(check(&weighted).await, CheckFailureKind::Mismatch, "value does not exist");
    fs::write(&path, "0\n").expect("written");
    assert!(check(&plain).await.is_ok());
    fs::write(&path, "2\n").expect("written");
    assert_fails(check(&plain).await, CheckFailureKind::Mismatch, "value says 2");
    assert!(check(&plain.reversed()).await.is_ok());
    let report = check(&weighted).await.expect("a weight, not a failure");
    assert_eq!(report.agent_override().weight, Some(AgentWeight::Plus(-20)));
}

#[tokio::test]
async fn what_is_no_number_is_named() {
    let folder = Folder::new();
    let path = folder.path().join("value");
    for garbage in [&b""[..], b"up\n", b"0 0", &[0xff; 128]] {
        fs::write(&path, garbage).expect("written");
        let answer = check(&FileCheck::value(&path)).await;
        assert_fails(answer, CheckFailureKind::Protocol, "does not hold a number");
    }
    fs::write(&path, [b'0'; 129]).expect("written");
    assert_fails(check(&FileCheck::value(&path)).await, CheckFailureKind::TooLong, "128 bytes");
    assert_fails(
        check(&FileCheck::value("/dev/zero")).await,
        CheckFailureKind::TooLong,
        "128 bytes",
    );
    let answer = check(&FileCheck::value(folder.path())).await;
    assert_fails(answer, CheckFailureKind::Local, "reading ");
}

#[tokio::test]
async fn a_pipe_holds_nobody_up() {
    let folder = Folder::new();
    let path = folder.path().join("pipe");
    complete(std::process::Command::new("mkfifo").arg(&path));
    let answer = check(&FileCheck::value(&path)).await;
    assert_fails(answer, CheckFailureKind::Protocol, "does not hold a number");
    // One that somebody has opened and says nothing into.
    let _writer = fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened");
    assert_fails(check(&FileCheck::value(&path)).await, CheckFailureKind::Local, "reading ");
}

#[tokio::test]
async fn existence_is_followed() {
    let folder = Folder::new();
    let path = folder.path().join("maintenance");
    let (wanted, unwanted) = (FileCheck::exists(&path), FileCheck::exists(&path).reversed());
    assert_fails(check(&wanted).await, CheckFailureKind::Mismatch, "maintenance does not exist");
    assert!(check(&unwanted).await.is_ok());
    fs::create_dir(&path).expect("anything of that name");
    assert!(check(&wanted).await.is_ok());
    assert_fails(check(&unwanted).await, CheckFailureKind::Mismatch, "maintenance exists");
    // Not known, which is neither.
    let odd = Path::new("/dev/null/within");
    assert_fails(check(&FileCheck::exists(odd)).await, CheckFailureKind::Local, "reading ");
}

#[tokio::test]
async fn many_share_one_check() {
    let folder = Folder::new();
    let path = folder.path().join("value");
    fs::write(&path, "0").expect("written");
    let shared = FileCheck::value(&path);
    let mut checks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let shared = shared.clone();
        checks.spawn(async move { check(&shared).await });
    }
    while let Some(answer) = checks.join_next().await {
        assert!(answer.expect("it ran").is_ok());
    }
}
