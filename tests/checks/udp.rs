//! The UDP check, against services that answer, services that do not, and closed ports.

use std::net::SocketAddr;
use std::time::Duration;

use lvs::health::{BytePattern, CheckContext, CheckFailureKind, UdpCheck};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::loopback::own_address;
use crate::world::{GARBAGE, LONG, ask, assert_fails, refusing, run, run_out_of_time};

/// A service that answers every datagram with other datagrams, until the service is dropped.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Service {
    pub(crate) async fn at(
        address: SocketAddr,
        mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind(address).await.expect("loopback");
        let address = socket.local_addr().expect("bound");
        let serving = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((len, client)) = socket.recv_from(&mut buffer).await {
                for datagram in answer(&buffer[..len]) {
                    socket.send_to(&datagram, client).await.expect("the reply is sent");
                }
            }
        });
        Self { address, serving }
    }

    async fn that(answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::at(own_address(), answer).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn pattern(text: &str) -> BytePattern {
    text.parse().expect(text)
}

#[tokio::test]
async fn no_reply_is_up_unless_a_reply_is_required() {
    let silent = Service::that(|_| vec![]).await;
    assert!(run(&UdpCheck::new(), silent.address, LONG).await.is_ok());
    let check = UdpCheck::new().expect_reply(BytePattern::default());
    let failure = run_out_of_time(&check, silent.address, "waiting for the reply").await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, "waiting for the reply");
}

#[tokio::test]
async fn any_reply_is_up_at_once() {
    let service = Service::that(|_| vec![GARBAGE.to_vec()]).await;
    // Without the reply the wait would never end.
    let check = UdpCheck::new().listen_for(Duration::MAX);
    assert!(run(&check, service.address, LONG).await.is_ok());
    let empty = Service::that(|_| vec![vec![]]).await;
    assert!(run(&check, empty.address, LONG).await.is_ok());
}

#[tokio::test]
async fn a_closed_port_is_down() {
    for check in [UdpCheck::new(), UdpCheck::new().expect_reply(pattern("xx"))] {
        let answer = run(&check, refusing(), LONG).await;
        assert_fails(answer, CheckFailureKind::Refused, "waiting for the reply: ");
    }
    let free = std::net::UdpSocket::bind("[::1]:0").expect("loopback").local_addr();
    let answer = run(&UdpCheck::new(), free.expect("bound"), LONG).await;
    assert_fails(answer, CheckFailureKind::Refused, "refused");
}

#[tokio::test]
async fn the_reply_is_compared() {
    let echo = Service::that(|request| vec![request.to_vec()]).await;
    let check = UdpCheck::new().payload(*b"ping 17");
    assert!(run(&check.clone().expect_reply(b"ping "), echo.address, LONG).await.is_ok());
    let counted = check.clone().expect_reply(pattern("70696e67 20 3x xx")).reply_lengths(7..=7);
    assert!(run(&counted, echo.address, LONG).await.is_ok());
    let answer = run(&check.clone().expect_reply(b"pong"), echo.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "\"ping 17\"");
    let answer = run(&check.clone().reply_lengths(0..=6), echo.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "reply of 7 bytes, expected 0 to 6");
    let answer = run(&check.expect_reply(b"ping 17 and more"), echo.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "does not begin with the pattern");
}

#[tokio::test]
async fn long_garbage_gives_a_bounded_reason() {
    let service = Service::that(|_| vec![GARBAGE.repeat(2000)]).await;
    let answer = run(&UdpCheck::new().expect_reply(b"ok"), service.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "\\x93\\xfe");
    let answer = run(&UdpCheck::new().reply_lengths(1..=100), service.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Mismatch, "reply of ");
}

#[tokio::test]
async fn a_payload_that_is_too_long_does_not_count_against_the_backend() {
    let service = Service::that(|_| vec![]).await;
    let answer = run(&UdpCheck::new().payload(vec![0; 65_508]), service.address, LONG).await;
    assert_fails(answer, CheckFailureKind::Local, "sending the datagram");
    let most = UdpCheck::new().payload(vec![0; 65_507]);
    assert!(run(&most, service.address, LONG).await.is_ok());
}

#[tokio::test]
async fn the_source_address_is_that_of_the_context() {
    let socket = UdpSocket::bind(own_address()).await.expect("loopback");
    let address = socket.local_addr().expect("bound");
    let context = CheckContext::new("server".into(), address).with_source([127, 0, 0, 9].into());
    let check = UdpCheck::new().expect_reply(BytePattern::default());
    let serve = async {
        let mut buffer = [0; 9];
        let (len, client) = socket.recv_from(&mut buffer).await.expect("a datagram");
        socket.send_to(&[], client).await.expect("sent");
        (len, client.ip())
    };
    let (answer, request) = tokio::join!(ask(&check, &context, LONG), serve);
    assert!(answer.is_ok());
    assert_eq!(request, (1, [127, 0, 0, 9].into()));
}

/// ICMP errors that arrive after the send, from the network and not from this kernel.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn icmp_errors_fail_the_check() {
    use crate::icmp::{raw_socket, unreachable};
    let Some(raw) = raw_socket() else { return };
    const UDP: u8 = 17;
    let cases = [
        (1, CheckFailureKind::Unreachable, "No route to host"),
        (0, CheckFailureKind::Unreachable, "unreachable"),
        (3, CheckFailureKind::Refused, "refused"),
    ];
    for (code, kind, words) in cases {
        let socket = UdpSocket::bind(own_address()).await.expect("loopback");
        let address = socket.local_addr().expect("bound");
        let serve = async {
            let (len, client) = socket.recv_from(&mut [0; 9]).await.expect("a datagram");
            let header = [
                client.port().to_be_bytes(),
                address.port().to_be_bytes(),
                (8 + len as u16).to_be_bytes(),
                [0; 2],
            ];
            let packet = unreachable(code, UDP, client, address, &header.concat());
            raw.send_to(&packet, &client.into()).expect("sent");
        };
        let check = UdpCheck::new().listen_for(LONG * 2);
        let (answer, ()) = tokio::join!(run(&check, address, LONG), serve);
        assert_fails(answer, kind, words);
    }
}
