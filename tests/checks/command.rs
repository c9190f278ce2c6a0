//! The command check, with programs that exit, hang, write without end, and leave processes behind.

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
        "exited with code 1",
    );
    let answer = check(&shell("echo; echo the disk is full >&2; exit 12")).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "exited with code 12: \"the disk is full\"");
    let report = check(&shell("exit 12").dynamic()).await.expect("up");
    assert_eq!(report.agent_override().weight, Some(AgentWeight::Exactly(10)));
    let report = check(&shell("exit 0").dynamic()).await.expect("up");
    assert_eq!(report.agent_override().weight, Some(AgentWeight::Percent(100)));
    let answer = check(&shell("kill -TERM $$").dynamic()).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "ended by signal 15");
    let answer = check(&shell("printf '\\033[2J\\377' >&2; exit 1")).await;
    assert_fails(answer, CheckFailureKind::Mismatch, r#"exited with code 1: "\u{1b}[2J\xff""#);
}

#[tokio::test]
async fn the_environment_names_the_backend() {
    let script = "[ \"$HAPROXY_SERVER_ADDR $HAPROXY_SERVER_PORT $HAPROXY_SERVER_NAME $1 $MORE\" = \
                  '::1 8080 server an argument; of two and more' ] && ! read line";
    let passes = shell(script).args(["sh", "an argument; of two"]).env("MORE", "and more");
    assert!(check(&passes).await.is_ok());
    let fails = passes.env("HAPROXY_SERVER_PORT", "1");
    assert_fails(check(&fails).await, CheckFailureKind::Mismatch, "exited with code 1");
}

#[tokio::test]
async fn a_program_that_cannot_be_started_does_not_count_against_the_backend() {
    let folder = Folder::new();
    let path = folder.path().join("check");
    let program = CommandCheck::new(&path);
    let name = path.display().to_string();
    let refused_as = async |check_of: &CommandCheck, words: &str| {
        assert_fails(check(check_of).await, CheckFailureKind::Local, words);
        let refused =
            check_of.clone().validated().map(drop).expect_err("it is found before the start too");
        assert!(refused.to_string().contains(words), "{refused}");
    };
    refused_as(&program, &format!("program {name} does not exist")).await;
    fs::write(&path, "not a program").expect("written");
    refused_as(&program, &format!("program {name} is not executable for this user")).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    assert_fails(check(&program).await, CheckFailureKind::Local, &format!("starting {name}: "));
    fs::write(&path, "#! /no/such/shell -e\nexit 0\n").expect("written");
    let interpreter = "interpreter that cannot be started: program /no/such/shell does not exist";
    refused_as(&program, interpreter).await;
    fs::write(&path, "#!/bin/sh\nexit 0\n").expect("written");
    assert!(program.clone().validated().is_ok());
    assert!(check(&program).await.is_ok());
    let folder = CommandCheck::new(folder.path());
    refused_as(&folder, "is not a file").await;
    refused_as(&CommandCheck::new("no-such-program"), "in no folder of PATH").await;
    assert!(CommandCheck::new("true").validated().is_ok());
    let nul = CommandCheck::new("true").env("A", "a\0b");
    assert_fails(check(&nul).await, CheckFailureKind::Local, "starting true");
}

#[tokio::test]
async fn long_output_is_read_and_discarded() {
    let answer = check(&shell("echo first >&2; head -c 3000000 /dev/zero >&2; exit 1")).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "exited with code 1: \"first\"");
    let answer = check(&shell("head -c 3000000 /dev/zero >&2; exit 1")).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "exited with code 1: ");
}

#[tokio::test]
async fn a_program_that_writes_without_end_times_out() {
    let folder = Folder::new();
    let script =
        format!("echo $$ > {0}/new; mv {0}/new {0}/ids; exec yes >&2", folder.path().display());
    // A paused clock does not advance while there is something to read.
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
async fn a_program_that_hangs_is_killed_with_its_children() {
    let folder = Folder::new();
    let script = family(folder.path(), "wait");
    let (check, context) =
        (shell(&script), CheckContext::new("s".into(), ([127, 0, 0, 1], 1).into()));
    {
        let mut asking = pin!(check.check(&context));
        tokio::select! {
            answer = &mut asking => panic!("the program never ends: {answer:?}"),
            () = until(|| folder.path().join("ids").exists()) => {}
        }
        assert!(ids(folder.path()).iter().all(|id| state(id).is_some()), "all processes run");
    }
    assert_end(&ids(folder.path())).await;
}

#[tokio::test]
async fn a_timeout_has_a_reason() {
    let check = shell("sleep 1000 & wait");
    let stage = "waiting for the program to end";
    let failure = run_out_of_time(&check, ([127, 0, 0, 1], 1).into(), stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);
}

#[tokio::test]
async fn processes_left_behind_are_killed() {
    for (end, up) in [("exit 0", true), ("exit 1", false), ("kill -KILL $$", false)] {
        let folder = Folder::new();
        // The children hold standard error open.
        let answer = check(&shell(&family(folder.path(), end))).await;
        assert_eq!(answer.is_ok(), up, "{answer:?}");
        assert_end(&ids(folder.path())).await;
    }
}

/// Also if the runtime shuts down: then no process that its threads have started is lost.
#[test]
fn a_check_dropped_during_the_start_leaves_no_process() {
    let folder = Folder::new();
    for polls in 0..20 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let check = shell(&format!("sleep 1000 & : {}; wait", folder.path().display()));
            let context = CheckContext::new("s".into(), ([127, 0, 0, 1], 1).into());
            let mut asking = pin!(check.check(&context));
            for _ in 0..polls {
                let poll = std::future::poll_fn(|task| {
                    std::task::Poll::Ready(asking.as_mut().poll(task).is_ready())
                });
                assert!(!poll.await, "the program never ends");
                tokio::task::yield_now().await;
            }
        });
        // Waits for the runtime's threads.
        drop(runtime);
        let mut looks = 0..LONG.as_millis();
        while !shells_of(folder.path()).is_empty() {
            assert!(looks.next().is_some(), "left: {:?}", shells_of(folder.path()));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Returns the running processes with this folder in their command line.
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

/// Returns a shell script with two children, one of which has a child; the script writes their PIDs
/// to a file, and then ends with a command.
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

/// Returns the PIDs in the file; the first is that of the program.
fn ids(folder: &Path) -> Vec<String> {
    let ids = fs::read_to_string(folder.join("ids")).expect("the file was written");
    ids.split_whitespace().map(str::to_owned).collect()
}

/// Returns the fields of `/proc/PID/stat` from the state on.
fn stat(id: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// Returns the state of a process; `None` if the process does not exist.
fn state(id: &str) -> Option<String> {
    stat(id).map(|fields| fields[0].clone())
}

/// Waits until no process runs. The program, which this process started, must have been reaped,
/// too; PID 1 reaps the others.
async fn assert_end(ids: &[String]) {
    let (leader, others) = ids.split_first().expect("at least the shell");
    until(|| state(leader).is_none()).await;
    until(|| others.iter().all(|id| state(id).is_none_or(|state| state == "Z" || state == "X")))
        .await;
}
