//! The list of connections, which the kernel has in a file only.

use std::io::{self, BufRead};

use lvs::ipvs::{IpvsConnection, IpvsProtocol};

use super::text::AddressWriter;

/// Returns the lines above the list.
pub(super) fn header(with_engine: bool) -> String {
    let server = match with_engine {
        true => format!("{:<18} {:<16} {}", "destination", "pe name", "pe_data"),
        false => "destination".to_owned(),
    };
    let (state, client, service) = ("state", "source", "virtual");
    format!("IPVS connection entries\npro expire {state:<11} {client:<18} {service:<18} {server}\n")
}

/// Returns a line for each connection of the kernel's file `ip_vs_conn`.
pub(super) fn lines(
    input: impl BufRead,
    addresses: &mut AddressWriter,
    with_engine: bool,
) -> impl Iterator<Item = io::Result<String>> {
    // The first line is the header.
    input.lines().skip(1).map(move |line| {
        let line = line?;
        let connection = IpvsConnection::parse(&line).ok_or_else(|| {
            let reason = format!("a line that is no connection: {line:?}");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        Ok(text(&connection, addresses, with_engine))
    })
}

/// Returns the kernel's word for a protocol.
fn protocol_word(protocol: IpvsProtocol) -> String {
    match protocol {
        IpvsProtocol::Other(0) => "IP".to_owned(),
        IpvsProtocol::Other(number) => format!("IP_{number}"),
        named => named.to_string(),
    }
}

fn text(connection: &IpvsConnection, addresses: &mut AddressWriter, with_engine: bool) -> String {
    let protocol = connection.protocol;
    let named = (!matches!(protocol, IpvsProtocol::Other(_))).then_some(protocol);
    let [client, service, server] =
        [connection.client, connection.virtual_address, connection.destination]
            .map(|address| addresses.write(address, named));
    let expires_secs = connection.expires_in.as_secs();
    let expires = format!("{:02}:{:02}", expires_secs / 60, expires_secs % 60);
    let server = match connection.engine.as_ref().filter(|_| with_engine) {
        Some((name, data)) => format!("{server:<16} {name:<18} {data}"),
        None => server,
    };
    let (protocol, state) = (protocol_word(protocol), &connection.state);
    format!("{protocol:<3} {expires:<6} {state:<11} {client:<18} {service:<18} {server}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";

    fn listed(input: &str, with_engine: bool) -> io::Result<String> {
        let mut addresses = AddressWriter::new(true);
        let lines = lines(input.as_bytes(), &mut addresses, with_engine);
        std::iter::once(Ok(header(with_engine))).chain(lines).collect()
    }

    #[test]
    fn connections_of_both_families_are_listed() {
        let lines = format!(
            "{HEADER}\
             TCP 0A000102 8B3F 0A000001 0050 0A000202 1F90 ESTABLISHED     893\n\
             UDP 2001:0db8:0000:0000:0000:0000:0000:0002 1389 \
             2001:0db8:0000:0000:0000:0000:0000:0001 0035 0A000203 0035 UDP             61 sip call-7\n"
        );
        let expected = "IPVS connection entries\n\
            pro expire state       source             virtual            destination\n\
            TCP 14:53  ESTABLISHED 10.0.1.2:35647     10.0.0.1:80        10.0.2.2:8080\n\
            UDP 01:01  UDP         [2001:db8::2]:5001 [2001:db8::1]:53   10.0.2.3:53\n";
        assert_eq!(listed(&lines, false).unwrap(), expected);
        let with_engine = listed(&lines, true).unwrap();
        let lines: Vec<_> = with_engine.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "pro expire state       source             virtual            destination        pe name          pe_data",
                "TCP 14:53  ESTABLISHED 10.0.1.2:35647     10.0.0.1:80        10.0.2.2:8080",
                "UDP 01:01  UDP         [2001:db8::2]:5001 [2001:db8::1]:53   10.0.2.3:53      sip                call-7",
            ]
        );
    }

    #[test]
    fn a_file_without_connections_or_even_its_header_is_an_empty_list() {
        for lines in [HEADER, ""] {
            assert_eq!(listed(lines, false).unwrap().lines().count(), 2);
        }
        let error = listed(&format!("{HEADER}TCP 0A000102\n"), false).unwrap_err();
        assert_eq!(error.to_string(), "a line that is no connection: \"TCP 0A000102\"");
    }
}
