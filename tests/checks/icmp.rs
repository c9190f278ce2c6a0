//! The ICMP check, over loopback, and in a network whose hosts send only what a test sends.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use lvs::health::{CheckContext, CheckFailureKind, IcmpCheck};
use socket2::{Domain, Protocol, Socket, Type};

use crate::skipped::report_skipped;
use crate::world::{LONG, ask, assert_fails, program, run, run_out_of_time};

/// Opens a raw socket; without the privilege prints the reason and returns `None`.
pub(crate) fn raw_socket() -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    socket.inspect_err(|error| report_skipped(format!("no raw socket: {error}"))).ok()
}

/// Returns an ICMP destination unreachable message about a datagram (RFC 792, page 4).
pub(crate) fn unreachable(
    code: u8,
    protocol: u8,
    from: SocketAddr,
    to: SocketAddr,
    datagram: &[u8],
) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from.ip(), to.ip()) else { panic!("IPv4 only") };
    let mut packet = vec![3, code, 0, 0, 0, 0, 0, 0];
    let len = (20 + datagram.len() as u16).to_be_bytes();
    packet.extend([0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(datagram);
    fill_checksum(&mut packet);
    packet
}

fn fill_checksum(packet: &mut [u8]) {
    packet[2..4].fill(0);
    let words = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[2..4].copy_from_slice(&(!sum as u16).to_be_bytes());
}

fn host(ip: [u8; 4]) -> SocketAddr {
    (ip, 80).into()
}

#[tokio::test]
async fn loopback_answers() {
    match run(&IcmpCheck::new(), host([127, 0, 0, 1]), LONG).await {
        Err(failure) if failure.kind() == CheckFailureKind::Local => {
            // Without privileges the reason names the setting to change.
            assert_fails(Err(failure.clone()), CheckFailureKind::Local, "ping_group_range");
            report_skipped(failure);
            return;
        }
        answer => assert!(answer.is_ok(), "{answer:?}"),
    }
    assert!(run(&IcmpCheck::new(), "[::1]:0".parse().expect("an address"), LONG).await.is_ok());
    let context = CheckContext::new("server".into(), host([127, 9, 9, 9]));
    let context = context.with_source([127, 0, 0, 9].into());
    assert!(ask(&IcmpCheck::new(), &context, LONG).await.is_ok());
    let context = context.with_source([192, 0, 2, 1].into());
    assert_fails(ask(&IcmpCheck::new(), &context, LONG).await, CheckFailureKind::Local, "assign");
}

#[tokio::test]
async fn concurrent_checks_ignore_replies_to_each_other() {
    let mut checks = tokio::task::JoinSet::new();
    for last in 1..=50 {
        checks.spawn(async move { run(&IcmpCheck::new(), host([127, 0, 1, last]), LONG).await });
    }
    while let Some(answer) = checks.join_next().await {
        match answer.expect("the check ran") {
            Err(failure) if failure.kind() == CheckFailureKind::Local => report_skipped(failure),
            answer => assert!(answer.is_ok(), "{answer:?}"),
        }
    }
}

/// Runs a test of this program again, in its own network namespace whose kernel answers no echo
/// request. Returns whether this is that run.
#[cfg(target_os = "linux")]
fn in_silent_network(test: &str) -> bool {
    use std::fs::write;
    const MARK: &str = "LVS_TEST_NETWORK";
    if std::env::var_os(MARK).is_some() {
        crate::world::complete(Command::new("ip").args(["link", "set", "lo", "up"]));
        write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").expect("of this network");
        return true;
    }
    let tools = program("unshare", "util-linux").and(program("ip", "iproute2"));
    if tools.is_none() || raw_socket().is_none() {
        return false;
    }
    let may = Command::new("unshare").args(["--net", "true"]).output().expect("the program starts");
    if !may.status.success() {
        report_skipped(String::from_utf8_lossy(&may.stderr));
        return false;
    }
    let mut again = Command::new("unshare");
    again.arg("--net").arg(std::env::current_exe().expect("a file"));
    again.args(["--exact", test, "--nocapture"]).env(MARK, "1");
    let output = again.output().expect("the program starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
    false
}

/// Waits for an echo request; returns the message without the IP header.
#[cfg(target_os = "linux")]
fn receive_request(raw: &Socket) -> Vec<u8> {
    let mut buffer = [0; 1500];
    loop {
        let len = (&mut &*raw).read(&mut buffer).expect("a packet");
        let message = &buffer[usize::from(buffer[0] & 0x0f) * 4..len];
        if message[0] == 8 {
            return message.to_vec();
        }
    }
}

/// Answers a request with a changed reply.
#[cfg(target_os = "linux")]
fn reply(raw: &Socket, request: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    let mut message = request.to_vec();
    message[0] = 0;
    change(&mut message);
    fill_checksum(&mut message);
    raw.send_to(&message, &host([127, 0, 0, 1]).into()).expect("sent");
}

/// Values of `ping_group_range`: with a datagram socket, and with a raw socket.
#[cfg(target_os = "linux")]
const GROUPS: [&str; 2] = ["0 0", "1 0"];

#[cfg(target_os = "linux")]
fn let_ping(groups: &str) {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", groups).expect("of this network");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn only_the_right_reply_counts() {
    if !in_silent_network("icmp::only_the_right_reply_counts") {
        return;
    }
    const WAITING: &str = "waiting for the echo reply";
    let localhost = host([127, 0, 0, 1]);
    for groups in GROUPS {
        let_ping(groups);
        let failure = run_out_of_time(&IcmpCheck::new(), localhost, WAITING).await;
        assert_fails(Err(failure), CheckFailureKind::Timeout, WAITING);

        // Wrong replies only, from a thread, because the raw socket blocks.
        let raw = raw_socket().expect("root");
        let wrong = std::thread::spawn(move || {
            let request = receive_request(&raw);
            reply(&raw, &request, |message| message[1] = 1);
            reply(&raw, &request, |message| message[4] ^= 1);
            reply(&raw, &request, |message| message[7] ^= 1);
            reply(&raw, &request, |message| message[8] ^= 1);
            reply(&raw, &request, |message| message.truncate(63));
            reply(&raw, &request, |message| message.extend([0; 1000]));
            reply(&raw, &request, |message| message[0] = 8);
        });
        let failure = run_out_of_time(&IcmpCheck::new(), localhost, WAITING).await;
        assert_fails(Err(failure), CheckFailureKind::Timeout, WAITING);
        wrong.join().expect("all were sent");

        let raw = raw_socket().expect("root");
        let right = std::thread::spawn(move || {
            let request = receive_request(&raw);
            reply(&raw, &request, |message| message[9] ^= 1);
            reply(&raw, &request, |_| ());
        });
        let answer = run(&IcmpCheck::new(), localhost, LONG).await;
        assert!(answer.is_ok(), "{answer:?}");
        right.join().expect("both were sent");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn icmp_errors_fail_the_check() {
    if !in_silent_network("icmp::icmp_errors_fail_the_check") {
        return;
    }
    const ICMP: u8 = 1;
    let localhost = host([127, 0, 0, 1]);
    for groups in GROUPS {
        let_ping(groups);
        for (code, words) in [(1, "No route to host"), (0, "unreachable"), (13, "No route to host")]
        {
            let raw = raw_socket().expect("root");
            let router = std::thread::spawn(move || {
                let request = receive_request(&raw);
                let packet = unreachable(code, ICMP, localhost, localhost, &request);
                raw.send_to(&packet, &localhost.into()).expect("sent");
            });
            let answer = run(&IcmpCheck::new(), localhost, LONG).await;
            assert_fails(answer, CheckFailureKind::Unreachable, words);
            router.join().expect("the error was sent");
        }
    }
    // The namespace has only a loopback interface.
    let answer = run(&IcmpCheck::new(), host([192, 0, 2, 1]), LONG).await;
    assert_fails(answer, CheckFailureKind::Unreachable, "looking up the route to the host");
}

/// Runs the first test again, as a user without any privilege.
#[cfg(target_os = "linux")]
#[test]
fn without_privileges_the_reason_names_the_setting() {
    let Some(setpriv) = program("setpriv", "util-linux") else { return };
    if raw_socket().is_none()
        || !in_silent_network("icmp::without_privileges_the_reason_names_the_setting")
    {
        return;
    }
    let_ping("1 0");
    let folder = crate::world::Folder::of("nobody");
    let copy = folder.path().join("checks");
    crate::world::copy_program(&std::env::current_exe().expect("a file"), &copy);
    let mut command = Command::new(setpriv);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
    command.arg(copy).args(["--exact", "icmp::loopback_answers", "--nocapture"]);
    let output = command.current_dir("/").output().expect("the program starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    // The reason for which the test skips what it cannot do.
    assert!(stderr.contains("ping_group_range") && stderr.contains("CAP_NET_RAW"), "{stderr}");
}
