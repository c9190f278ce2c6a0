//! The program at its limit of open files.

use std::io::Read;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;

use crate::world::{Folder, free, get, server, watch};

/// More than the limit allows at a time.
const CLIENTS: usize = 200;

/// The program with this many descriptors at most, so that it cannot raise the limit.
fn limited(limit: usize) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_lvs"));
    command
}

#[test]
fn clients_wait_and_the_operator_is_answered_while_descriptors_are_short() {
    let folder = Folder::new("descriptors");
    let [listen, admin] = free();
    let more = format!("workers = 2\n[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"warn\"\n");
    let path = folder.configure(&more, listen, server(b'a'));
    let text = std::fs::read_to_string(&path).expect("written");
    std::fs::write(&path, text + "[service.tcp]\nmax_connections = 1000\n").expect("a file");
    let mut child = limited(80)
        .args(["run", "--config", &path])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let _watchdog = watch(child.id());
    while TcpStream::connect(admin).is_err() {
        thread::yield_now();
    }
    // Connections that stay open until all clients are there and the operator was answered.
    let connect = || TcpStream::connect(listen).expect("the kernel's queue has room");
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
    assert!(get(admin).contains("<html"), "the page is served");
    // All at once: a client that is served may be behind one that waits.
    let read = |mut client: TcpStream| {
        thread::spawn(move || {
            let mut byte = [0];
            client.read_exact(&mut byte).map(|()| byte)
        })
    };
    let readers: Vec<_> = clients.into_iter().map(read).collect();
    for reader in readers {
        let byte = reader.join().expect("no panic").expect("no client is reset");
        assert_eq!(byte, [b'a']);
    }
    let killed = child.kill();
    let output = child.wait_with_output().expect("a child of ours");
    let log = String::from_utf8(output.stderr).expect("utf-8");
    killed.expect("it ran until now");
    assert!(log.contains("the limit of open files (ulimit -n) is 80"), "{log}");
    assert!(log.contains("need 2000: beyond the limit clients wait"), "{log}");
    assert!(log.contains("cannot accept connections: connections and flows have taken"), "{log}");
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let folder = Folder::new("soft");
    let [listen, admin] = free();
    let path = folder.configure(&format!("[admin]\nlisten = \"{admin}\"\n"), listen, server(b'a'));
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -Sn 64 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_lvs")])
        .args(["run", "--config", &path])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let _watchdog = watch(child.id());
    while TcpStream::connect(admin).is_err() {
        thread::yield_now();
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let words: Vec<&str> = line.split_whitespace().collect();
    child.kill().and_then(|()| child.wait()).expect("a child of ours");
    assert_ne!(words[3], "64", "{line}");
    assert!(words[3] == words[4] || words[3] == "1048576", "{line}");
}
