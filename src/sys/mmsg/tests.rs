//! Over loopback sockets: what goes in comes out, with its addresses and sizes.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use super::control::{
    CONTROL_BUFFER_BYTES, ControlBuffer, read_control_messages, write_control_messages,
};
use super::header::empty_header;
use super::*;

fn connected_pair(address: &str) -> (UdpSocket, UdpSocket) {
    let (a, b) = (UdpSocket::bind(address).unwrap(), UdpSocket::bind(address).unwrap());
    a.connect(b.local_addr().unwrap()).unwrap();
    (a, b)
}

fn whole_datagrams(batch: &DatagramBatch) -> Vec<DatagramSlice> {
    let piece = |(index, it): (usize, &ReceivedDatagram)| DatagramSlice {
        datagram: index as u32,
        offset: 0,
        len: it.len as u32,
    };
    batch.received().iter().enumerate().map(piece).collect()
}

#[test]
fn datagrams_keep_their_bytes_senders_and_order() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (from, to) = connected_pair(address);
        let sizes = [0, 1, 64, 1500, 65_507];
        for (i, size) in sizes.into_iter().enumerate() {
            from.send(&vec![i as u8; size]).unwrap();
        }
        let mut batch = DatagramBatch::new(8);
        assert_eq!(batch.receive(to.as_fd(), 8, true).unwrap(), sizes.len());
        for (i, size) in sizes.into_iter().enumerate() {
            assert_eq!(batch.bytes(i), vec![i as u8; size]);
            let received = batch.received()[i];
            assert_eq!(received.peer, Some(from.local_addr().unwrap()));
            assert_eq!((received.segment_size, received.truncated), (0, false));
        }
        let error = batch.receive(to.as_fd(), 8, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_full_batch_takes_no_more_until_it_is_cleared() {
    let (from, to) = connected_pair("127.0.0.1:0");
    for i in 0..5 {
        from.send(&[i]).unwrap();
    }
    let mut batch = DatagramBatch::new(3);
    assert_eq!(batch.receive(to.as_fd(), 2, false).unwrap(), 2);
    assert_eq!(batch.receive(to.as_fd(), 9, false).unwrap(), 1);
    assert_eq!(batch.free_slots(), 0);
    batch.clear();
    assert_eq!(batch.receive(to.as_fd(), 9, false).unwrap(), 2);
    assert_eq!(batch.bytes(1), [4]);
}

#[test]
fn the_destination_is_told_and_can_be_answered_from() {
    let listener = UdpSocket::bind("0.0.0.0:0").unwrap();
    enable_pktinfo(listener.as_fd(), false).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"?", ("127.0.0.2", port)).unwrap();
    let mut batch = DatagramBatch::new(1);
    batch.receive(listener.as_fd(), 1, true).unwrap();
    let received = batch.received()[0];
    assert_eq!(received.local, Some(IpAddr::from([127, 0, 0, 2])));

    let message = OutgoingMessage {
        to: received.peer,
        from: received.local,
        segment_size: 0,
        first_slice: 0,
        slice_count: 1,
    };
    let mut sender = DatagramSender::default();
    sender.send(listener.as_fd(), &[message], &whole_datagrams(&batch), &batch).unwrap();
    let mut answer = [0; 9];
    let (len, from) = client.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..len], from), (&b"?"[..], SocketAddr::from(([127, 0, 0, 2], port))));
}

#[test]
fn the_kernel_cuts_on_the_way_out_and_puts_together_on_the_way_in() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (source, relay) = connected_pair(address);
        let (out, sink) = connected_pair(address);
        for i in 0..4 {
            source.send(&[i; 100]).unwrap();
        }
        source.send(&[4; 50]).unwrap();
        let mut batch = DatagramBatch::new(8);
        batch.receive(relay.as_fd(), 8, true).unwrap();
        let message = OutgoingMessage {
            to: None,
            from: None,
            segment_size: 100,
            first_slice: 0,
            slice_count: 5,
        };
        let mut sender = DatagramSender::default();

        sender.send(out.as_fd(), &[message], &whole_datagrams(&batch), &batch).unwrap();
        let mut apart = DatagramBatch::new(8);
        assert_eq!(apart.receive(sink.as_fd(), 8, true).unwrap(), 5);
        assert_eq!((apart.bytes(3), apart.bytes(4)), (&[3; 100][..], &[4; 50][..]));

        set_udp_gro(sink.as_fd(), true).unwrap();
        sender.send(out.as_fd(), &[message], &whole_datagrams(&batch), &batch).unwrap();
        let mut together = DatagramBatch::new(8);
        assert_eq!(together.receive(sink.as_fd(), 8, true).unwrap(), 1);
        let received = together.received()[0];
        assert_eq!((received.len, received.segment_size), (450, 100));
        assert_eq!(together.bytes(0)[400..], [4; 50]);
    }
}

#[test]
fn control_messages_are_laid_out_as_the_macros_read_them() {
    let from = IpAddr::from([1, 2, 3, 4, 5, 6, 7, 8]);
    let mut control = ControlBuffer([0; CONTROL_BUFFER_BYTES]);
    let length = write_control_messages(&mut control, Some(from), 1200);
    assert!(length <= CONTROL_BUFFER_BYTES);
    let mut header = empty_header();
    header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
    header.msg_hdr.msg_controllen = length as _;
    let mut received =
        ReceivedDatagram { peer: None, local: None, len: 9, segment_size: 0, truncated: false };
    read_control_messages(&header.msg_hdr, &mut received);
    assert_eq!(received.local, Some(from));
}
