//! Handovers that need a child process: inherited sockets, and a limit of open files.

use std::io::{Read, Write, stdin};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use lvs::forward::handover::{HandoverError, from_environment, receive, send};

/// The environment variable that selects the role of the child process.
const CHILD: &str = "LVS_TEST_CHILD";

/// Returns the command for this test program with [`the_child`] alone, after a shell script.
fn start(child: &str, script: &str) -> Command {
    let script =
        format!("{script} exec \"$0\" --exact --nocapture --test-threads=1 handover::the_child");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .arg(std::env::current_exe().expect("a test is a program"))
        .env(CHILD, child);
    command
}

/// Returns the command with a listener as descriptor 3, and an environment for `count` sockets.
fn start_service(listener: TcpListener, count: &str, names: &str) -> Command {
    let script = format!(
        "exec 3<&0 </dev/null; \
         export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names};"
    );
    let mut command = start(count, &script);
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    command
}

#[test]
fn a_service_inherits_the_sockets_of_the_service_manager() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The kernel queues the connection before the service starts.
    let mut client = TcpStream::connect(address).unwrap();
    let mut service = start_service(listener, "1", "web").spawn().unwrap();
    let mut name = String::new();
    client.read_to_string(&mut name).unwrap();
    assert_eq!(name, "web");
    assert!(service.wait().unwrap().success());
}

#[test]
fn an_inherited_descriptor_that_is_not_open_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let names = "a:".repeat(899) + "a";
    let status = start_service(listener, "900", &names).status().unwrap();
    assert!(status.success());
}

#[test]
fn sockets_above_the_limit_of_open_files_are_an_error_and_are_closed() {
    let (predecessor, successor) = UnixStream::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Sent from this process: the kernel also applies the limit of an unprivileged sender.
    send(&predecessor, &[("web", listener.as_fd()); 100]).unwrap();
    let mut child = start("limit", "ulimit -n 64;");
    let status = child.stdin(Stdio::from(OwnedFd::from(successor))).status().unwrap();
    assert!(status.success());
}

/// The child process; does nothing if no test started it.
#[test]
fn the_child() {
    match std::env::var(CHILD).as_deref() {
        Ok("1") => {
            let mut sockets = from_environment().unwrap();
            let (name, descriptor) = sockets.remove(0);
            assert!(sockets.is_empty());
            assert!(from_environment().unwrap().is_empty(), "the sockets have an owner already");
            let (mut client, _) = TcpListener::from(descriptor).accept().unwrap();
            client.write_all(name.as_bytes()).unwrap();
        }
        Ok("limit") => {
            let stream = UnixStream::from(stdin().as_fd().try_clone_to_owned().unwrap());
            let error = receive(&stream).unwrap_err();
            assert!(matches!(error, HandoverError::Truncated), "{error}");
            // The received descriptors are closed, so others can be opened.
            let files: Result<Vec<_>, _> = (0..30).map(|_| stream.try_clone()).collect();
            assert!(files.is_ok());
        }
        Ok(_) => {
            let error = from_environment().unwrap_err();
            assert!(matches!(error, HandoverError::InheritedDescriptor { .. }), "{error}");
        }
        Err(_) => assert!(from_environment().unwrap().is_empty(), "no sockets were announced"),
    }
}
