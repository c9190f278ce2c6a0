//! The command check, with programs that answer, hang, talk without end, and leave others behind.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use lvs::backend::AgentWeight;
use lvs::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport, CommandCheck};

use crate::world::{Folder, LONG, assert_fails, run, run_out_of_time, until};

fn shell(script: &str) -> CommandCheck {
    CommandCheck::new("/bin/sh").arg("-c").arg(script)
}

async fn check(check: &CommandCheck) -> Result<CheckReport, CheckFailure> {
    run(check, "[::1]:8080".parse().expect("an address"), LONG).await
}

#[tokio::test]
async fn the_exit_code_decides() {
    assert!(check(&CommandCheck::new("true")).await.is_ok());
    assert_fails(
        check(&CommandCheck::new("false")).await,
        CheckFailureKind::Mismatch,
        "exit code 1",
    );
    let answer = check(&shell("echo; echo the disk is full >&2; exit 12")).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "exit code 12: the disk is full");
    let report = check(&shell("exit 12").dynamic()).await.expect("up");
    assert_eq!(report.agent_override().weight, Some(AgentWeight::Exactly(10)));
    let report = check(&shell("exit 0").dynamic()).await.expect("up");
    assert_eq!(report.agent_override().weight, Some(AgentWeight::Percent(100)));
    let answer = check(&shell("kill -TERM $$").dynamic()).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "ended by signal 15");
    let answer = check(&shell("printf '\\033[2J\\377' >&2; exit 1")).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "exit code 1: \u{fffd}[2J");
}

#[tokio::test]
async fn it_is_told_whom_to_check() {
    let script = "[ \"$HAPROXY_SERVER_ADDR $HAPROXY_SERVER_PORT $HAPROXY_SERVER_NAME $1 $MORE\" = \
                  '::1 8080 server an argument; of two and more' ] && ! read line";
    let told = shell(script).args(["sh", "an argument; of two"]).env("MORE", "and more");
    assert!(check(&told).await.is_ok());
    let other = told.env("HAPROXY_SERVER_PORT", "1");
    assert_fails(check(&other).await, CheckFailureKind::Mismatch, "exit code 1");
}

#[tokio::test]
async fn what_cannot_be_started_is_nobodys_fault() {
    let folder = Folder::new();
    let path = folder.path().join("check");
    let words = format!("starting {}", path.display());
    assert_fails(check(&CommandCheck::new(&path)).await, CheckFailureKind::Local, &words);
    fs::write(&path, "not a program").expect("written");
    assert_fails(check(&CommandCheck::new(&path)).await, CheckFailureKind::Local, &words);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    assert_fails(check(&CommandCheck::new(&path)).await, CheckFailureKind::Local, &words);
    assert_fails(
        check(&CommandCheck::new(folder.path())).await,
        CheckFailureKind::Local,
        "starting ",
    );
    let nul = CommandCheck::new("true").env("A", "a\0b");
    assert_fails(check(&nul).await, CheckFailureKind::Local, "starting true");
}

#[tokio::test]
async fn much_is_read_and_forgotten() {
    let answer = check(&shell("echo first >&2; head -c 3000000 /dev/zero >&2; exit 1")).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "exit code 1: first");
    let answer = check(&shell("head -c 3000000 /dev/zero >&2; exit 1")).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "exit code 1: ");
}

#[tokio::test]
async fn one_that_talks_without_end_times_out() {
    let folder = Folder::new();
    let script =
        format!("echo $$ > {0}/new; mv {0}/new {0}/ids; exec yes >&2", folder.path().display());
    // A clock that is held does not run while there is something to read.
    let answer = loop {
        let answer =
            run(&shell(&script), ([127, 0, 0, 1], 1).into(), Duration::from_millis(200)).await;
        if folder.path().join("ids").exists() {
            break answer;
        }
    };
    assert_fails(answer, CheckFailureKind::Timeout, "waiting for the program to end");
    assert_end(&ids(folder.path())).await;
}

#[tokio::test]
async fn one_that_hangs_is_killed_with_all_it_started() {
    let folder = Folder::new();
    let script = family(folder.path(), "wait");
    let (check, probe) =
        (shell(&script), CheckContext::new("s".into(), ([127, 0, 0, 1], 1).into()));
    {
        let mut asking = pin!(check.check(&probe));
        tokio::select! {
            answer = &mut asking => panic!("it never ends: {answer:?}"),
            () = until(|| folder.path().join("ids").exists()) => {}
        }
        assert!(ids(folder.path()).iter().all(|id| state(id).is_some()), "all of them live");
    }
    assert_end(&ids(folder.path())).await;
}

#[tokio::test]
async fn its_time_runs_out_with_a_reason() {
    let check = shell("sleep 1000 & wait");
    let stage = "waiting for the program to end";
    let failure = run_out_of_time(&check, ([127, 0, 0, 1], 1).into(), stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);
}

#[tokio::test]
async fn what_it_leaves_behind_is_killed() {
    for (end, up) in [("exit 0", true), ("exit 1", false), ("kill -KILL $$", false)] {
        let folder = Folder::new();
        // The others hold its standard error open.
        let answer = check(&shell(&family(folder.path(), end))).await;
        assert_eq!(answer.is_ok(), up, "{answer:?}");
        assert_end(&ids(folder.path())).await;
    }
}

/// Also when the runtime ends meanwhile: then nothing that its threads have begun is lost.
#[test]
fn one_dropped_while_it_starts_leaves_nothing() {
    let folder = Folder::new();
    for polls in 0..20 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let check = shell(&format!("sleep 1000 & : {}; wait", folder.path().display()));
            let probe = CheckContext::new("s".into(), ([127, 0, 0, 1], 1).into());
            let mut asking = pin!(check.check(&probe));
            for _ in 0..polls {
                let poll = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(asking.as_mut().poll(context).is_ready())
                });
                assert!(!poll.await, "it never ends");
                tokio::task::yield_now().await;
            }
        });
        // Waits for what its threads are doing.
        drop(runtime);
        let mut looks = 0..LONG.as_millis();
        while !shells_of(folder.path()).is_empty() {
            assert!(looks.next().is_some(), "left: {:?}", shells_of(folder.path()));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The living processes with this folder in their command line.
fn shells_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("text");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let named = |id: &String| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder)
    };
    ids.filter(named).collect()
}

/// A shell with two children, one of which has one, too; it says who they are, and then ends so.
fn family(folder: &Path, end: &str) -> String {
    format!(
        "sh -c 'sleep 1000 & echo $! > {0}/deep; mv {0}/deep {0}/child; wait' & a=$!
         sleep 1000 & b=$!
         for i in $(seq 1000); do [ -e {0}/child ] && break; sleep 0.01; done
         echo $$ $a $b $(cat {0}/child) > {0}/new
         mv {0}/new {0}/ids
         {end}",
        folder.display()
    )
}

/// The first is the program that was run.
fn ids(folder: &Path) -> Vec<String> {
    let ids = fs::read_to_string(folder.join("ids")).expect("it was written");
    ids.split_whitespace().map(str::to_owned).collect()
}

/// From the state on.
fn stat(id: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// `None` if there is no such process.
fn state(id: &str) -> Option<String> {
    stat(id).map(|fields| fields[0].clone())
}

/// Waits until none runs; the one that this process started must have been waited for, too, while
/// for the others that is PID 1's business.
async fn assert_end(ids: &[String]) {
    let (leader, others) = ids.split_first().expect("at least the shell");
    until(|| state(leader).is_none()).await;
    until(|| others.iter().all(|id| state(id).is_none_or(|state| state == "Z" || state == "X")))
        .await;
}
