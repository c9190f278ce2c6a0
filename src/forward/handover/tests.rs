//! Handovers of real sockets through a socket pair, and invalid handovers.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_getfd};

use super::environment::ListenEnvironment;
use super::*;

/// Returns a socket pair with timeouts that no successful test reaches.
fn pair() -> (UnixStream, UnixStream) {
    let (predecessor, successor) = UnixStream::pair().unwrap();
    for end in [&predecessor, &successor] {
        end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        end.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (predecessor, successor)
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

/// Returns the error of a receiver whose peer sends these bytes and closes.
fn receive_text(text: &str) -> HandoverError {
    let (predecessor, successor) = pair();
    (&predecessor).write_all(text.as_bytes()).unwrap();
    drop(predecessor);
    receive(&successor).unwrap_err()
}

#[test]
fn connections_queued_before_the_handover_are_accepted_after_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued: Vec<TcpStream> = (0..5_u8)
        .map(|number| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(&[number]).unwrap();
            client
        })
        .collect();

    let (predecessor, successor) = pair();
    send(&predecessor, &[("web", listener.as_fd())]).unwrap();
    drop((listener, predecessor));

    let mut received = receive(&successor).unwrap();
    let (name, descriptor) = received.remove(0);
    assert_eq!((&*name, received.len()), ("web", 0));
    let listener = TcpListener::from(descriptor);
    assert_eq!(listener.local_addr().unwrap(), address);
    queued.push(TcpStream::connect(address).unwrap());
    (&queued[5]).write_all(&[5]).unwrap();
    for client in &queued {
        let (mut server, from) = listener.accept().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        let mut number = [0];
        server.read_exact(&mut number).unwrap();
        server.write_all(&number).unwrap();
    }
    for (number, client) in queued.iter_mut().enumerate() {
        let mut echo = [0];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(usize::from(echo[0]), number);
    }
}

#[test]
fn sockets_keep_their_names_and_order_and_are_closed_on_exec() {
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let names = ["web", "dns of the office", "web"];
    let (predecessor, successor) = pair();
    let named: Vec<_> = names.into_iter().zip(listeners.iter().map(AsFd::as_fd)).collect();
    send(&predecessor, &named).unwrap();
    // Bytes behind the handover stay in the stream.
    (&predecessor).write_all(b"bye").unwrap();
    let received = receive(&successor).unwrap();
    assert!(received.iter().map(|(name, _)| &**name).eq(names));
    for ((_, descriptor), address) in received.into_iter().zip(addresses) {
        assert!(fcntl_getfd(&descriptor).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(TcpListener::from(descriptor).local_addr().unwrap(), address);
    }
    let mut behind = [0; 3];
    (&successor).read_exact(&mut behind).unwrap();
    assert_eq!(&behind, b"bye");
}

#[test]
fn more_sockets_than_fit_into_one_message_are_sent_in_several() {
    for count in [0, 1, MAX_FDS_PER_MESSAGE, MAX_FDS_PER_MESSAGE + 1, 3 * MAX_FDS_PER_MESSAGE + 7] {
        let file = null();
        let names: Vec<String> = (0..count).map(|number| format!("socket-{number}")).collect();
        let named: Vec<_> = names.iter().map(|name| (name, file.as_fd())).collect();
        let (predecessor, successor) = pair();
        let received = thread::scope(|scope| {
            let sending = scope.spawn(|| send(&predecessor, &named));
            let received = receive(&successor).unwrap();
            sending.join().unwrap().unwrap();
            received
        });
        assert!(received.iter().map(|(name, _)| name).eq(&names), "{count}");
    }
}

#[test]
fn invalid_names_and_too_many_sockets_are_refused_before_anything_is_sent() {
    let (predecessor, successor) = pair();
    let file = null();
    let long = "a".repeat(MAX_NAME_LEN + 1);
    for name in ["", "a:b", "a\nb", "\u{e9}", &long] {
        let refused = send(&predecessor, &[("good", file.as_fd()), (name, file.as_fd())]);
        assert!(matches!(refused, Err(HandoverError::InvalidName { .. })), "{name:?}");
    }
    let many = vec![("a", file.as_fd()); MAX_SOCKETS + 1];
    let refused = send(&predecessor, &many);
    assert!(
        matches!(refused, Err(HandoverError::TooManySockets { count }) if count == MAX_SOCKETS + 1)
    );
    drop(predecessor);
    assert_eq!((&successor).read(&mut [0]).unwrap(), 0);
    // The peer has closed the stream.
    let refused = send(&successor, &[("a", file.as_fd())]);
    assert!(matches!(refused, Err(HandoverError::Io(_))));
}

#[test]
fn another_version_and_another_protocol_are_distinguished() {
    for text in ["lvs-handover 2 1 4\nweb\n", "lvs-handover 2 whatever\n", "lvs-handover 2\n"] {
        assert!(
            matches!(receive_text(text), HandoverError::UnsupportedVersion { version: 2 }),
            "{text}"
        );
    }
    for text in [
        "GET / HTTP/1.1\r\n\r\n",
        "lvs-handover 1 1",
        "lvs-handover 1 1\n",
        "lvs-handover 1 1 4 9\n",
        "lvs-handover 1 1 -4\n",
        "lvs-handover\n",
        "lvs-handover1 1 4\n",
        "lvs-handover 1 1 257\n",
        "lvs-handover 1 2 4\nweb\n",
        "lvs-handover 1 1 3\nweb",
        "lvs-handover 1 0 1\n\n",
        "lvs-handover 1 00000000000000000000000000000000000000000000000000000000000000001 4\n",
    ] {
        let error = receive_text(text);
        let is_name = text.ends_with("0 1\n\n");
        match error {
            HandoverError::UnknownProtocol { .. } => {}
            // A superfluous line feed is an empty name, or too long a list.
            HandoverError::InvalidName { .. } if is_name => {}
            _ => panic!("{text:?}: {error:?}"),
        }
    }
    assert!(matches!(receive_text(""), HandoverError::Io(_)));
    assert!(matches!(
        receive_text("lvs-handover 1 1025 0\n"),
        HandoverError::TooManySockets { count: 1025 }
    ));
    let colon = receive_text("lvs-handover 1 1 4\na:b\n");
    assert!(matches!(colon, HandoverError::InvalidName { name } if name == "a:b"));
}

#[test]
fn too_few_and_too_many_descriptors_are_refused_and_closed() {
    let missing = receive_text("lvs-handover 1 2 4\na\nb\n+");
    assert!(matches!(missing, HandoverError::MissingSockets { received: 0, announced: 2 }));

    // The reading end of a pipe gets the end of the stream when its last writing end is closed.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (predecessor, successor) = pair();
    (&predecessor).write_all(b"lvs-handover 1 2 4\na\nb\n").unwrap();
    send_descriptors(&predecessor, &[writer.as_fd(); 3]).unwrap();
    drop(writer);
    let refused = receive(&successor).unwrap_err();
    assert!(matches!(refused, HandoverError::UnexpectedSockets { announced: 2 }));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);

    let (mut reader, writer) = std::io::pipe().unwrap();
    let (predecessor, successor) = pair();
    (&predecessor).write_all(b"lvs-handover 1 2 4\na\nb\n").unwrap();
    send_descriptors(&predecessor, &[writer.as_fd()]).unwrap();
    drop((writer, predecessor));
    let refused = receive(&successor).unwrap_err();
    assert!(matches!(refused, HandoverError::MissingSockets { received: 1, announced: 2 }));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_environment_of_systemd_is_read() {
    let environment = |pid: &str, count: &str, names: Option<&str>| ListenEnvironment {
        pid: Some(pid.to_owned()),
        count: Some(count.to_owned()),
        names: names.map(str::to_owned),
    };
    let names = |environment: ListenEnvironment| environment.socket_names(7);
    assert_eq!(names(environment("7", "2", Some("web:dns"))).unwrap(), ["web", "dns"]);
    assert_eq!(names(environment("7", "2", None)).unwrap(), ["unknown", "unknown"]);
    assert!(names(environment("7", "0", Some(""))).unwrap().is_empty());
    assert!(names(environment("8", "2", None)).unwrap().is_empty());
    assert!(names(ListenEnvironment::default()).unwrap().is_empty());
    for (pid, count, list, invalid) in [
        ("x", "1", None, "LISTEN_PID"),
        ("7", "-1", None, "LISTEN_FDS"),
        ("7", "2", Some("web"), "LISTEN_FDNAMES"),
        ("7", "1", Some(""), "LISTEN_FDNAMES"),
    ] {
        let refused = names(environment(pid, count, list)).unwrap_err();
        let HandoverError::InvalidEnvironment { variable, .. } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(variable, invalid);
    }
    let many = names(environment("7", "1025", None)).unwrap_err();
    assert!(matches!(many, HandoverError::TooManySockets { count: 1025 }));
}
