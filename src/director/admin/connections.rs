//! The open connections of the admin server: how many there may be, and which one makes room.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The open connections. One more is always accepted: above a limit it takes the place of another one.
///
/// The limits are one for all, and a half of it for each client, so that no client keeps others out.
/// The connection that makes room is that of the client with the most connections whose last request is
/// the longest ago. A client that holds connections without a request loses them to those that ask.
#[derive(Debug)]
pub(super) struct AdminConnectionTable<H> {
    max: usize,
    entries: Vec<TableEntry<H>>,
}

/// A handle on a connection, with what decides whether it makes room.
#[derive(Debug)]
struct TableEntry<H> {
    client: IpAddr,
    handle: H,
}

/// A handle on a connection.
pub(super) trait ConnectionHandle {
    /// Returns the number of the last request, which grows with each request to the server; that of its
    /// acceptance before the first.
    fn last_request(&self) -> u64;
    /// Returns whether the connection has ended.
    fn has_ended(&self) -> bool;
}

impl<H: ConnectionHandle> AdminConnectionTable<H> {
    /// Returns a table of `max` connections, at least 1.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), entries: Vec::new() }
    }

    /// Removes and returns the connection that makes room for one more of a client, if one must.
    pub(super) fn make_room(&mut self, client: IpAddr) -> Option<H> {
        self.entries.retain(|entry| !entry.handle.has_ended());
        let client = client_group(client);
        let count =
            |client: IpAddr| self.entries.iter().filter(|entry| entry.client == client).count();
        let hog = if count(client) >= self.max.div_ceil(2) {
            client
        } else if self.entries.len() >= self.max {
            // Of two with as many connections, programs on this machine keep theirs.
            let clients = self.entries.iter().map(|entry| entry.client);
            clients.max_by_key(|client| (count(*client), !client.is_loopback()))?
        } else {
            return None;
        };
        let positions = 0..self.entries.len();
        let of_hog = positions.filter(|position| self.entries[*position].client == hog);
        let oldest = of_hog.min_by_key(|position| self.entries[*position].handle.last_request())?;
        Some(self.entries.swap_remove(oldest).handle)
    }

    pub(super) fn insert(&mut self, client: IpAddr, handle: H) {
        self.entries.push(TableEntry { client: client_group(client), handle });
    }
}

/// Returns what counts as one client: an IPv4 address, a /64 of IPv6, this machine.
fn client_group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection with the number of its last request; that of one that has ended is 0.
    #[derive(Debug, Eq, PartialEq)]
    struct Numbered(u64);

    impl ConnectionHandle for Numbered {
        fn last_request(&self) -> u64 {
            self.0
        }

        fn has_ended(&self) -> bool {
            self.0 == 0
        }
    }

    fn table(max: usize, connections: &[(&str, u64)]) -> AdminConnectionTable<Numbered> {
        let mut table = AdminConnectionTable::new(max);
        for (client, number) in connections {
            table.insert(client.parse().expect("an address"), Numbered(*number));
        }
        table
    }

    #[test]
    fn the_client_with_the_most_connections_makes_room() {
        for (max, connections, client, loses) in [
            (4, &[("10.0.0.1", 5), ("10.0.0.2", 4)][..], "10.0.0.3", None),
            // A client above its half loses its own, the longest without a request.
            (4, &[("10.0.0.1", 5), ("10.0.0.1", 4), ("10.0.0.2", 1)], "10.0.0.1", Some(4)),
            (4, &[("10.0.0.1", 5), ("10.0.0.1", 4), ("10.0.0.2", 1)], "10.0.0.2", None),
            // A full table: the client with the most, whoever comes.
            (3, &[("10.0.0.1", 9), ("10.0.0.1", 8), ("10.0.0.2", 1)], "10.0.0.3", Some(8)),
            // Connections that have ended do not count.
            (2, &[("10.0.0.1", 0), ("10.0.0.2", 0)], "10.0.0.3", None),
            // This machine keeps its own among equals, though they are older.
            (2, &[("127.0.0.1", 1), ("10.0.0.2", 2)], "10.0.0.3", Some(2)),
            // All of this machine, and a /64, are one client.
            (4, &[("127.0.0.1", 2), ("::1", 1)], "127.9.9.9", Some(1)),
            (4, &[("2001:db8::1", 2), ("2001:db8::2", 1)], "2001:db8::3", Some(1)),
            (4, &[("2001:db8::1", 2), ("2001:db8:0:1::2", 1)], "2001:db8::3", None),
            (1, &[("127.0.0.1", 7)], "127.0.0.1", Some(7)),
        ] {
            let made = table(max, connections).make_room(client.parse().expect("an address"));
            assert_eq!(made, loses.map(Numbered), "{max} {connections:?} {client}");
        }
    }
}
