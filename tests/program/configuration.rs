//! `lvs run --config`: signals, the service manager, a successor. `lvs check` and `lvs import`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::world::{
    Director, Folder, Manager, ask, drained_whole, free, lvs, output, server, signal, watch,
};

#[test]
fn sighup_reloads_and_an_invalid_configuration_changes_nothing() {
    let folder = Folder::new("reload");
    let manager = Manager::new(&folder);
    let ([listen], a, b) = (free(), server(b'a'), server(b'b'));
    let config = folder.configure("", listen, a);
    let mut child = lvs()
        .args(["run", "--config", &config])
        .env("NOTIFY_SOCKET", &manager.path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("built");
    let _watchdog = watch(child.id());
    manager.until("READY=1");
    assert_eq!(ask(listen), b'a');
    for (more, server, answer) in [("no_such_key = 1", b, b'a'), ("", b, b'b'), ("", a, b'a')] {
        folder.configure(more, listen, server);
        signal("HUP", child.id());
        manager.until("RELOADING=1");
        manager.until("READY=1");
        assert_eq!(ask(listen), answer);
    }
    signal("TERM", child.id());
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("utf-8");
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0));
    assert!(stderr.contains("not reloaded: ") && stderr.contains("no_such_key"), "{stderr}");
    assert!(stderr.contains("reloaded: service web: updated servers"), "{stderr}");
    let version = env!("CARGO_PKG_VERSION");
    let source = format!("version={version:?} configuration={config:?} services=1");
    for line in [format!("lvs started {source}"), format!("lvs stopped {source} finished=")] {
        assert_eq!(stderr.matches(&line).count(), 1, "{line}: {stderr}");
    }

    folder.configure("", listen, a);
    let ways: [&[&str]; 3] =
        [&["check", &config], &["check", "--config", &config], &["--config", &config, "check"]];
    for words in ways {
        let (code, stdout, _) = output(words);
        assert_eq!((code, stdout), (Some(0), format!("{config} is valid\n")));
    }
    folder.configure("no_such_key = 1", listen, a);
    let (code, _, stderr) = output(&["check", &config]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("lvs.toml:1:1: no_such_key: unknown field"), "{stderr}");
}

#[test]
fn a_second_process_takes_over_from_the_first() {
    let folder = Folder::new("handover");
    let ([listen], a) = (free(), server(b'a'));
    let more = format!("handover = {:?}", folder.path("handover.sock"));
    let config = folder.configure(&more, listen, a);
    let mut first = Director::start(&["--config", &config]);
    first.find(|line| line.starts_with("service web: ").then_some(()));
    let mut second = Director::start(&["--config", &config]);
    second.find(|line| line.starts_with("service web: ").then_some(()));
    first.find(drained_whole);
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(ask(listen), b'a');
    second.interrupt();
    assert_eq!(second.wait().code(), Some(0));
}

#[test]
fn a_successor_that_fails_late_leaves_the_handover_socket_to_the_first() {
    let folder = Folder::new("late");
    let ([listen], a) = (free(), server(b'a'));
    let more = format!("handover = {:?}", folder.path("handover.sock"));
    let config = folder.configure(&more, listen, a);
    let mut first = Director::start(&["--config", &config]);
    first.find(|line| line.starts_with("service web: ").then_some(()));
    // Its sockets are open when the threads of the service find no descriptors.
    let text = std::fs::read_to_string(&config).expect("written");
    let text = text.replace("listen = ", "workers = 500\nlisten = ");
    std::fs::write(folder.path("hungry.toml"), text).expect("a file");
    let program = lvs().get_program().to_str().expect("text").to_owned();
    let shell =
        format!("ulimit -n 200; exec {program} run --config {}", folder.path("hungry.toml"));
    for _ in 0..2 {
        let failed = Command::new("sh").args(["-c", &shell]).output().expect("a shell");
        let stderr = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("error: service web: cannot run a worker thread"), "{stderr}");
        assert_eq!(ask(listen), b'a');
    }
    let mut second = Director::start(&["--config", &config]);
    second.find(|line| line.starts_with("service web: ").then_some(()));
    first.find(drained_whole);
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(ask(listen), b'a');
    second.interrupt();
    assert_eq!(second.wait().code(), Some(0));
}

#[test]
fn a_service_manager_is_notified_and_its_sockets_are_used() {
    let folder = Folder::new("manager");
    let manager = Manager::new(&folder);
    let ([listen], a) = (free(), server(b'a'));
    let config = folder.configure("", listen, a);
    // Held open as a service manager does; a shell passes it on as descriptor 3.
    let held = TcpListener::bind(listen).expect("it is free");
    let shell = format!(
        "export LISTEN_PID=$$ LISTEN_FDS=1 WATCHDOG_PID=$$; exec {} run --config {config} 3<&0 </dev/null",
        lvs().get_program().to_str().expect("text")
    );
    let mut child = Command::new("sh")
        .args(["-c", &shell])
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "200000")
        .stdin(Stdio::from(OwnedFd::from(held)))
        .stdout(Stdio::null())
        .spawn()
        .expect("a shell");
    let _watchdog = watch(child.id());
    manager.until("READY=1");
    assert_eq!(ask(listen), b'a', "the address was taken, and not bound again");
    manager.until("WATCHDOG=1");
    signal("TERM", child.id());
    manager.until("STOPPING=1");
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0));
}

#[test]
fn other_configurations_are_imported() {
    let folder = Folder::new("import");
    let saved = folder.path("saved");
    let text = "-A -t 10.0.0.1:80 -s wrr\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 3\n";
    std::fs::write(&saved, text).expect("a file");
    let (code, config, _) = output(&["import", &saved]);
    assert_eq!(code, Some(0));
    std::fs::write(folder.path("lvs.toml"), config).expect("a file");
    assert_eq!(output(&["check", &folder.path("lvs.toml")]).0, Some(0));
    std::fs::write(&saved, "what is this").expect("a file");
    let (code, _, stderr) = output(&["import", &saved]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("line 1: the text is neither"), "{stderr}");
    let (code, _, stderr) = output(&["import", &folder.path("missing")]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("missing: No such file or directory"), "{stderr}");
}

#[test]
fn a_director_goes_on_when_nobody_reads_its_output() {
    let folder = Folder::new("unread");
    let manager = Manager::new(&folder);
    let ([listen], a) = (free(), server(b'a'));
    let config = folder.configure("", listen, a);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = lvs()
        .args(["run", "--config", &config])
        .env("NOTIFY_SOCKET", &manager.path)
        .stdout(writer.try_clone().expect("a pipe"))
        .stderr(writer)
        .spawn()
        .expect("built");
    let _watchdog = watch(child.id());
    manager.until("READY=1");
    assert_eq!(ask(listen), b'a');
    signal("HUP", child.id());
    manager.until("RELOADING=1");
    manager.until("READY=1");
    signal("TERM", child.id());
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0));
}

#[test]
fn a_reload_applies_the_log_level() {
    let folder = Folder::new("log-level");
    let manager = Manager::new(&folder);
    let ([listen], a) = (free(), server(b'a'));
    let config = folder.configure("", listen, a);
    let mut child = lvs()
        .args(["run", "--config", &config])
        .env("NOTIFY_SOCKET", &manager.path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("built");
    let _watchdog = watch(child.id());
    manager.until("READY=1");
    // The second reload is logged at no level, the last one at the level that it sets.
    for more in ["[log]\nlevel = \"error\"", "drain_timeout = \"1s\"\n[log]\nlevel = \"error\"", ""]
    {
        folder.configure(more, listen, a);
        signal("HUP", child.id());
        manager.until("RELOADING=1");
        manager.until("READY=1");
    }
    signal("TERM", child.id());
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("utf-8");
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0));
    assert_eq!(stderr.matches("reloaded: [log]: updated").count(), 2, "{stderr}");
    assert_eq!(stderr.matches("reloaded: drain_timeout: updated").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("reloaded: ").count(), 3, "{stderr}");
    assert!(stderr.contains("lvs stopped"), "{stderr}");
}

/// A connection whose span began before the reload is logged in the new format too.
#[test]
fn a_reload_applies_the_log_format() {
    let folder = Folder::new("log-format");
    let manager = Manager::new(&folder);
    let ([listen], a) = (free(), server(b'a'));
    let configure = |format: &str| {
        let log = format!("workers = 1\n[log]\nlevel = \"debug\"\nformat = \"{format}\"\n");
        let path = folder.configure(&log, listen, a);
        let text = std::fs::read_to_string(&path).expect("a file");
        std::fs::write(&path, text + "[service.tcp]\naccept_proxy = \"1m\"\n").expect("a file");
        path
    };
    // Sends no PROXY header, which is a line of level debug, and waits for the reset.
    let refuse = |mut client: TcpStream| {
        client.write_all(b"no header").expect("it is open");
        let _ = client.read(&mut [0]);
    };
    let connect = || TcpStream::connect(listen).expect("it listens");
    let config = configure("text");
    let mut child = lvs()
        .args(["run", "--config", &config])
        .env("NOTIFY_SOCKET", &manager.path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("built");
    let _watchdog = watch(child.id());
    manager.until("READY=1");
    for format in ["json", "text", "json"] {
        let held = connect();
        // Accepted after the other one.
        refuse(connect());
        configure(format);
        signal("HUP", child.id());
        manager.until("RELOADING=1");
        manager.until("READY=1");
        refuse(held);
    }
    signal("TERM", child.id());
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("utf-8");
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0), "{stderr}");
    let is_json = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    let reloads: Vec<_> = stderr.lines().filter(|line| line.contains("reloaded: ")).collect();
    let formats: Vec<_> = reloads.iter().map(is_json).collect();
    assert_eq!(formats, [true, false, true], "{stderr}");
    let refused = |json| {
        let refused =
            stderr.lines().filter(|line| line.contains("cannot parse the client's PROXY"));
        refused.filter(|line| is_json(line) == json).count()
    };
    assert_eq!((refused(false), refused(true)), (3, 3), "{stderr}");
    let last = stderr.lines().last().expect("lines");
    assert!(is_json(&last) && last.contains("lvs stopped"), "{stderr}");
    assert!(stderr.lines().any(|line| is_json(&line) && line.contains("\"span\"")), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn what_a_start_refuses_is_refused_by_check() {
    let folder = Folder::new("check");
    let ([listen], a) = (free(), server(b'a'));
    for path in ["/dev/zero".to_owned(), folder.path("pipe")] {
        if !std::path::Path::new(&path).exists() {
            let made = Command::new("mkfifo").arg(&path).status().expect("of coreutils");
            assert!(made.success());
        }
        let (code, _, stderr) = output(&["check", &path]);
        assert_eq!(
            (code, stderr),
            (Some(1), format!("error: cannot read {path}: not a regular file\n"))
        );
    }
    // A table that is too small for the servers is found where the scheduler gets them.
    let mut text = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\n\
                    scheduler = \"maglev(size=251)\"\n"
        .to_owned();
    for n in 0..300 {
        text += &format!("[[service.server]]\naddress = \"10.0.0.1:{}\"\n", n + 1);
    }
    std::fs::write(folder.path("many.toml"), text).expect("a file");
    let (code, _, stderr) = output(&["check", &folder.path("many.toml")]);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("error: service web: "), "{stderr}");
    let config = folder.configure("no_such_key = 1\nworkers = \"x\"", listen, a);
    let (code, _, stderr) = output(&["check", &config]);
    assert_eq!((code, stderr.matches("error: ").count()), (Some(1), 2), "{stderr}");
    let text = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path("warned.toml"), text).expect("a file");
    let (code, _, stderr) = output(&["check", &folder.path("warned.toml")]);
    assert_eq!((code, stderr.matches("warning: service web").count()), (Some(0), 2), "{stderr}");
}
