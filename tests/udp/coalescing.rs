//! Datagrams of all sizes, single and coalesced.

use std::net::UdpSocket;

use lvs::forward::Coalesce;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_all_sizes_are_forwarded_unchanged() {
    for coalesce in [Coalesce::Auto, Coalesce::Always, Coalesce::Never] {
        let echo = Echo::new(b'a');
        let (_set, forwarder) = forwarder_to(&[echo.address]);
        let (handle, running) = start(forwarder.coalesce(coalesce));
        let client = client(&handle);
        for size in [0, 1, 2, 1200, 1472, 1473, 9000, 65_000] {
            let message: Vec<u8> = (0..size).map(|i| i as u8).collect();
            assert_eq!(exchange(&client, &message), b'a', "{size} bytes");
        }
        // The largest possible datagram; the server truncates its reply.
        client.send(&[7; 65_507]).expect("loopback");
        assert_eq!(receive(&client).len(), 65_001);
        let (_, counters) = end(&handle, running).await;
        assert_eq!((counters.to_servers.datagrams, counters.to_clients.datagrams), (9, 9));
    }
}

/// Sends numbered datagrams of 1000 bytes, `run` of them in each system call.
fn send_in_runs(socket: &UdpSocket, run: usize, runs: usize) {
    use std::os::fd::AsRawFd;
    let segment = 1000u16;
    for number in 0..runs {
        let mut bytes = Vec::new();
        for i in 0..run {
            let mut datagram = vec![0; usize::from(segment)];
            datagram[..8].copy_from_slice(&((number * run + i) as u64).to_be_bytes());
            bytes.extend(datagram);
        }
        segmented::send(socket.as_raw_fd(), &bytes, segment);
    }
}

mod segmented {
    //! `UDP_SEGMENT` as a socket option, for a client that sends with GSO.
    use std::os::fd::RawFd;

    #[allow(unsafe_code, reason = "no safe crate offers the option")]
    pub(super) fn send(socket: RawFd, bytes: &[u8], segment: u16) {
        let value = libc::c_int::from(segment);
        // SAFETY: a plain `int` is set and a live buffer is sent, with their own sizes.
        unsafe {
            let option = std::ptr::from_ref(&value).cast();
            let size = size_of::<libc::c_int>() as libc::socklen_t;
            assert_eq!(libc::setsockopt(socket, libc::SOL_UDP, libc::UDP_SEGMENT, option, size), 0);
            let sent = libc::send(socket, bytes.as_ptr().cast(), bytes.len(), 0);
            assert_eq!(sent, bytes.len() as isize);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coalesced_datagrams_arrive_separately() {
    for coalesce in [Coalesce::Auto, Coalesce::Always, Coalesce::Never] {
        let echo = Echo::new(b'a');
        let (_set, forwarder) = forwarder_to(&[echo.address]);
        let (handle, running) = start(forwarder.coalesce(coalesce));
        let client = client(&handle);
        let mut next = 0;
        for _ in 0..20 {
            send_in_runs(&client, 16, 1);
            let mut numbers: Vec<u64> = (0..16)
                .map(|_| {
                    let answer = receive(&client);
                    assert_eq!(answer.len(), 1001, "{coalesce:?}");
                    u64::from_be_bytes(answer[1..9].try_into().expect("eight bytes"))
                })
                .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..16).collect::<Vec<u64>>());
            next += 16;
        }
        let (_, counters) = end(&handle, running).await;
        assert_eq!(
            (counters.from_clients.datagrams, counters.from_clients.bytes),
            (next, next * 1000)
        );
        assert_eq!((counters.to_clients.datagrams, counters.undelivered.sum()), (next, 0));
    }
}
