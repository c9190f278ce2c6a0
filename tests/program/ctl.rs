//! `lvs ctl` against a director.

use std::net::TcpStream;
use std::process::Stdio;

use crate::world::{Director, Folder, ask, free, lvs, output, server};

#[test]
fn ctl_lists_and_changes_servers() {
    let folder = Folder::new("ctl");
    let ([listen, admin], a, b) = (free(), server(b'a'), server(b'b'));
    let more = format!("[admin]\nlisten = \"{admin}\"\ntoken = \"0123456789abcdef\"");
    let mut director = Director::start(&["--config", &folder.configure(&more, listen, a)]);
    director.find(|line| line.starts_with("status: ").then_some(()));
    let ctl = |words: &[&str]| {
        let mut command = lvs();
        command.args(["ctl", "--admin", &admin.to_string()]).args(words);
        let output = command.env("LVS_TOKEN", "0123456789abcdef").output().expect("built");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8(output.stdout).expect("utf-8"), stderr)
    };
    let (a, b) = (a.to_string(), b.to_string());
    assert_eq!(ctl(&["add", "web", &b, "-n", "second", "-w", "2", "-x", "5"]).0, Some(0));
    assert_eq!(ctl(&["drain", "web", &a]).0, Some(0));
    assert_eq!(ask(listen), b'b');
    assert_eq!(ctl(&["edit", "web", &b, "-w", "7"]).0, Some(0));
    // By its name, and limits alone: the weight stays. The director logs who it was.
    let edit = ["edit", "web", "second", "-x", "40", "-y", "30", "--tier", "1", "--as", "alice"];
    let (code, _, stderr) = ctl(&edit);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let (code, _, stderr) = ctl(&["edit", "web", "second", "-x", "4"]);
    assert_eq!((code, stderr.contains("30")), (Some(1), true), "{stderr}");
    assert_eq!(ctl(&["edit", "web", "second"]).0, Some(2));
    let status: serde_json::Value =
        serde_json::from_str(&ctl(&["list", "--json"]).1).expect("JSON");
    let server = &status["services"][0]["servers"][1];
    let limits = ["max_connections", "resume_connections", "tier", "weight"];
    assert_eq!(limits.map(|key| server[key].as_u64()), [40, 30, 1, 7].map(Some));
    let by = server["changed"]["by"].as_str().expect("a name");
    assert!(by.starts_with("alice at 127.0.0.1:"), "{by}");
    let (_, list, _) = ctl(&["list"]);
    let row = |list: &str, server: &str| {
        let row = list.lines().find(|line| line.contains(server)).expect("a row").to_owned();
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(&list, &a)[..4], ["->", &a, "draining*", "1"]);
    assert_eq!(row(&list, &b)[..5], ["->", &b, "second", "eligible*", "7"]);
    let (_, stats, _) = ctl(&["list", "web", "--stats"]);
    assert_eq!(row(&stats, &b)[3], "1");
    assert_eq!(ctl(&["zero"]).0, Some(0));
    assert_eq!(row(&ctl(&["list", "--stats"]).1, &b)[3], "0");
    assert_eq!(ctl(&["list", "--rate"]).0, Some(0));
    assert_eq!(ctl(&["list", "--clients"]).0, Some(0));
    let held = TcpStream::connect(listen).expect("served");
    // A connection is listed once a worker has accepted it.
    let list = |_| ctl(&["list", "-c"]).1.lines().nth(1).map(str::to_owned);
    let listed = (0..100).find_map(list).expect("the connection is listed");
    let client = held.local_addr().expect("bound").to_string();
    let listed: Vec<_> = listed.split_whitespace().collect();
    assert_eq!(listed[..4], ["web", &client, &listen.to_string(), &b]);
    assert_eq!(ctl(&["up", "web", &a]).0, Some(0));
    assert_eq!(ctl(&["delete", "web", &b]).0, Some(0));
    let (code, _, stderr) = ctl(&["delete", "web", &b]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("has no server \"{b}\"")), "{stderr}");
    let (code, _, stderr) = ctl(&["--token", "wrong", "list"]);
    assert_eq!((code, stderr.contains("token")), (Some(1), true), "{stderr}");
}

#[test]
fn the_address_and_token_stand_before_or_after_the_command_or_in_the_environment() {
    let folder = Folder::new("options");
    let ([listen, admin], a) = (free(), server(b'a'));
    let more = format!("[admin]\nlisten = \"{admin}\"\ntoken = \"0123456789abcdef\"");
    let mut director = Director::start(&["--config", &folder.configure(&more, listen, a)]);
    director.find(|line| line.starts_with("status: ").then_some(()));
    let admin = &admin.to_string();
    let options = ["--admin", admin, "--token", "0123456789abcdef"];
    let options = ["--as", "alice"].into_iter().chain(options).collect::<Vec<_>>();
    for at in 0..3 {
        let mut words = vec!["ctl", "list"];
        words.splice(at..at, options.iter().copied());
        let (code, stdout, stderr) = output(&words);
        assert_eq!((code, stdout.contains("[web]")), (Some(0), true), "{words:?}: {stderr}");
    }
    let environment = [("LVS_ADMIN", &**admin), ("LVS_TOKEN", "0123456789abcdef")];
    let listed = lvs().args(["ctl", "list"]).envs(environment).output().expect("built");
    assert_eq!(listed.status.code(), Some(0));
    let (code, _, stderr) = output(&["ctl", "--admin", admin, "list"]);
    assert_eq!((code, stderr.contains("token")), (Some(1), true), "{stderr}");
}

#[test]
fn a_reader_that_closes_early_ends_a_list_quietly() {
    let folder = Folder::new("pipe");
    let ([listen, admin], a) = (free(), server(b'a'));
    let more = format!("[admin]\nlisten = \"{admin}\"");
    let mut director = Director::start(&["--config", &folder.configure(&more, listen, a)]);
    director.find(|line| line.starts_with("status: ").then_some(()));
    for list in ["--json", "--stats", "-c"] {
        // A pipe whose reader is gone before the program starts.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = lvs()
            .args(["ctl", "--admin", &admin.to_string(), "list", list])
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("built");
        let stderr = String::from_utf8(output.stderr).expect("utf-8");
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
    }
}

#[test]
fn a_director_that_does_not_answer_is_named_with_the_cause() {
    let [nobody] = free();
    let (code, _, stderr) = output(&["ctl", "list", "--admin", &nobody.to_string()]);
    assert_eq!(code, Some(1));
    let text = format!("error: cannot connect to the director at {nobody} (");
    assert!(stderr.starts_with(&text) && stderr.contains("Connection refused"), "{stderr}");
}
