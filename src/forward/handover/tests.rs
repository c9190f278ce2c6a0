//! Real sockets handed through a socket pair, and what must be refused.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_getfd};

use super::environment::ListenEnvironment;
use super::*;

/// Both ends, which give up long after any test is over.
fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    for end in [&one, &other] {
        end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        end.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (one, other)
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

/// What a receiver says of these bytes, the peer being gone behind them.
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

    let mut taken = receive(&successor).unwrap();
    let (name, descriptor) = taken.remove(0);
    assert_eq!((&*name, taken.len()), ("web", 0));
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
fn what_is_handed_over_keeps_its_name_its_order_and_away_from_children() {
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<SocketAddr> = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
    let names = ["web", "dns of the office", "web"];
    let (predecessor, successor) = pair();
    let named: Vec<_> = names.into_iter().zip(listeners.iter().map(AsFd::as_fd)).collect();
    send(&predecessor, &named).unwrap();
    // The stream carries on behind the handover, with another one for example.
    (&predecessor).write_all(b"bye").unwrap();
    let taken = receive(&successor).unwrap();
    assert!(taken.iter().map(|(name, _)| &**name).eq(names));
    for ((_, descriptor), address) in taken.into_iter().zip(addresses) {
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
        let taken = thread::scope(|scope| {
            let sending = scope.spawn(|| send(&predecessor, &named));
            let taken = receive(&successor).unwrap();
            sending.join().unwrap().unwrap();
            taken
        });
        assert!(taken.iter().map(|(name, _)| name).eq(&names), "{count}");
    }
}

#[test]
fn what_cannot_be_handed_over_is_refused_before_anything_is_sent() {
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
    // Nobody is there to take it.
    let refused = send(&successor, &[("a", file.as_fd())]);
    assert!(matches!(refused, Err(HandoverError::Io(_))));
}

#[test]
fn another_version_and_another_protocol_are_told_apart() {
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
            // One empty line too many is an empty name, or too long a list.
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

    // A pipe tells when the last descriptor of its writing end is closed.
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
fn the_environment_is_read_as_systemd_writes_it() {
    let announced = |pid: &str, count: &str, names: Option<&str>| ListenEnvironment {
        pid: Some(pid.to_owned()),
        count: Some(count.to_owned()),
        names: names.map(str::to_owned),
    };
    let names = |it: ListenEnvironment| it.socket_names(7);
    assert_eq!(names(announced("7", "2", Some("web:dns"))).unwrap(), ["web", "dns"]);
    assert_eq!(names(announced("7", "2", None)).unwrap(), ["unknown", "unknown"]);
    assert!(names(announced("7", "0", Some(""))).unwrap().is_empty());
    assert!(names(announced("8", "2", None)).unwrap().is_empty());
    assert!(names(ListenEnvironment::default()).unwrap().is_empty());
    for (pid, count, list, wrong) in [
        ("x", "1", None, "LISTEN_PID"),
        ("7", "-1", None, "LISTEN_FDS"),
        ("7", "2", Some("web"), "LISTEN_FDNAMES"),
        ("7", "1", Some(""), "LISTEN_FDNAMES"),
    ] {
        let refused = names(announced(pid, count, list)).unwrap_err();
        let HandoverError::InvalidEnvironment { variable, .. } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(variable, wrong);
    }
    let many = names(announced("7", "1025", None)).unwrap_err();
    assert!(matches!(many, HandoverError::TooManySockets { count: 1025 }));
}
