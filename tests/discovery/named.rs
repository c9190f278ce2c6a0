//! A real name server: BIND's `named` over one zone.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};

use crate::skipped::report_skipped;
use crate::world::*;

/// A running `named` with the zone `lvs.test`.
pub(crate) struct Named {
    folder: Folder,
    child: Child,
    pub(crate) address: SocketAddr,
    serial: u32,
}

impl Named {
    /// Starts `named` with records; if `named` is not installed, prints that and returns `None`.
    pub(crate) async fn start(records: &str) -> Option<Self> {
        let program = "/usr/sbin/named";
        if !fs::exists(program).unwrap_or(false) {
            let missing = "named is not installed: package bind9";
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            report_skipped(missing);
            return None;
        }
        // Another process may take the port before named binds it.
        for _ in 0..5 {
            let folder = Folder::new();
            let address = free_port();
            let home = folder.path().display();
            let configuration = format!(
                "options {{ directory \"{home}\"; pid-file none; session-keyfile none; \
                 listen-on port {} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; \
                 recursion no; dnssec-validation no; notify no; }};\n\
                 controls {{ }};\n\
                 zone \"lvs.test\" {{ type primary; file \"zone\"; }};\n",
                address.port()
            );
            let configuration = folder.write("named.conf", configuration);
            folder.write("zone", zone(1, records));
            let log = fs::File::create(folder.path().join("log")).expect("a folder of ours");
            let mut child = Command::new(program)
                .args(["-g", "-n", "1", "-c"])
                .arg(configuration)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("it starts");
            for _ in 0..LONG.as_millis() / 20 {
                if child.try_wait().expect("a child of ours").is_some() {
                    break;
                }
                if TcpStream::connect(address).is_ok() {
                    return Some(Self { folder, child, address, serial: 1 });
                }
                sleep(Duration::from_millis(20)).await;
            }
            let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            println!("named has not started:\n{log}");
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("named does not start");
    }

    /// Replaces the records of the zone.
    pub(crate) fn change(&mut self, records: &str) {
        self.serial += 1;
        // By a rename, so that named never reads half a zone.
        let new = self.folder.write("new", zone(self.serial, records));
        fs::rename(new, self.folder.path().join("zone")).expect("at once");
        let signalled = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status();
        assert!(signalled.expect("the kill program").success());
    }

    /// Stops `named`.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the zone file; all TTLs are a second.
fn zone(serial: u32, records: &str) -> String {
    let mut zone = format!(
        "$TTL 1\n$ORIGIN lvs.test.\n@ SOA ns.lvs.test. admin.lvs.test. ( {serial} 60 60 60 1 )\n\
         @ NS ns\nns A 127.0.0.1\n"
    );
    for line in records.lines() {
        writeln!(zone, "{}", line.trim()).expect("a string takes any text");
    }
    zone
}

/// Returns a port that is free for UDP and for TCP.
fn free_port() -> SocketAddr {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let address = tcp.local_addr().expect("bound");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free for both");
}
