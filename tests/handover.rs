//! A process started as systemd starts one finds the sockets that were opened ahead of it.
#![cfg(all(target_os = "linux", feature = "forward", not(lvs_loom)))]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use lvs::forward::handover::{HandoverError, from_environment};

/// Set for the process that the test starts.
const CHILD: &str = "LVS_TEST_CHILD";

/// A shell makes its standard input descriptor 3, and then becomes the test program again.
fn start(listener: TcpListener, count: &str) -> Command {
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES=${{NAMES}} \
         exec \"$0\" --exact --nocapture --test-threads=1 the_child"
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .arg(std::env::current_exe().expect("a test is a program"))
        .env(CHILD, count)
        .stdin(Stdio::from(OwnedFd::from(listener)));
    command
}

#[test]
fn a_service_gets_the_sockets_of_its_manager() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Queued before the service exists.
    let mut client = TcpStream::connect(address).unwrap();
    let mut service = start(listener, "1").env("NAMES", "web").spawn().unwrap();
    let mut name = String::new();
    client.read_to_string(&mut name).unwrap();
    assert_eq!(name, "web");
    assert!(service.wait().unwrap().success());
}

#[test]
fn a_socket_that_is_not_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let status = start(listener, "900").env("NAMES", "a:".repeat(899) + "a").status().unwrap();
    assert!(status.success());
}

/// The service itself; nothing where no test started it.
#[test]
fn the_child() {
    match std::env::var(CHILD).as_deref() {
        Ok("1") => {
            let mut sockets = from_environment().unwrap();
            let (name, descriptor) = sockets.remove(0);
            assert!(sockets.is_empty());
            assert!(from_environment().unwrap().is_empty(), "they have an owner already");
            let (mut client, _) = TcpListener::from(descriptor).accept().unwrap();
            client.write_all(name.as_bytes()).unwrap();
        }
        Ok(_) => {
            let refused = from_environment().unwrap_err();
            assert!(matches!(refused, HandoverError::Inherited { .. }), "{refused}");
        }
        Err(_) => assert!(from_environment().unwrap().is_empty(), "nothing was announced"),
    }
}
