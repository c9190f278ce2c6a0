//! The file check, with files that are valid, missing, malformed and endless.

use std::fs;
use std::path::Path;

use lvs::backend::AgentWeight;
use lvs::health::{CheckFailure, CheckFailureKind, CheckReport, FileCheck};

use crate::world::{Folder, LONG, assert_fails, complete, run};

async fn check(check: &FileCheck) -> Result<CheckReport, CheckFailure> {
    run(check, ([127, 0, 0, 1], 80).into(), LONG).await
}

#[tokio::test]
async fn the_number_in_the_file_decides() {
    let folder = Folder::new();
    let path = folder.path().join("value");
    let (plain, weighted) = (FileCheck::value(&path), FileCheck::value(&path).weight(-10));
    assert_fails(check(&plain).await, CheckFailureKind::Mismatch, "value does not exist");
    assert_fails(check(&weighted).await, CheckFailureKind::Mismatch, "value does not exist");
    fs::write(&path, "0\n").expect("written");
    assert!(check(&plain).await.is_ok());
    fs::write(&path, "2\n").expect("written");
    assert_fails(check(&plain).await, CheckFailureKind::Mismatch, "value contains 2, expected 0");
    assert!(check(&plain.reversed()).await.is_ok());
    let report = check(&weighted).await.expect("a weight, not a failure");
    assert_eq!(report.agent_override().weight, Some(AgentWeight::Plus(-20)));
}

#[tokio::test]
async fn other_content_than_a_number_is_a_failure() {
    let folder = Folder::new();
    let path = folder.path().join("value");
    for garbage in [&b""[..], b"up\n", b"0 0", &[0xff; 128]] {
        fs::write(&path, garbage).expect("written");
        let answer = check(&FileCheck::value(&path)).await;
        assert_fails(answer, CheckFailureKind::Protocol, "expected a number");
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
async fn a_named_pipe_does_not_block() {
    let folder = Folder::new();
    let path = folder.path().join("pipe");
    complete(std::process::Command::new("mkfifo").arg(&path));
    let answer = check(&FileCheck::value(&path)).await;
    assert_fails(answer, CheckFailureKind::Protocol, "expected a number");
    // A pipe with a writer that writes nothing.
    let _writer = fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened");
    assert_fails(check(&FileCheck::value(&path)).await, CheckFailureKind::Local, "reading ");
}

#[tokio::test]
async fn the_existence_of_the_file_decides() {
    let folder = Folder::new();
    let path = folder.path().join("maintenance");
    let (required, forbidden) = (FileCheck::exists(&path), FileCheck::exists(&path).reversed());
    assert_fails(check(&required).await, CheckFailureKind::Mismatch, "maintenance does not exist");
    assert!(check(&forbidden).await.is_ok());
    fs::create_dir(&path).expect("anything of that name");
    assert!(check(&required).await.is_ok());
    assert_fails(check(&forbidden).await, CheckFailureKind::Mismatch, "maintenance exists");
    // Existence is unknown, which is neither up nor down.
    let odd = Path::new("/dev/null/within");
    assert_fails(check(&FileCheck::exists(odd)).await, CheckFailureKind::Local, "reading ");
}

#[tokio::test]
async fn clones_share_a_check() {
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
        assert!(answer.expect("the check ran").is_ok());
    }
}
