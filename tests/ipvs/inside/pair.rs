//! Two directors, of which one takes over from the other: connections through the kernel's balancer go on
//! if its synchronization daemons have told of them, or if both choose the same server by hash and take a
//! connection over in its midst.
//!
//! ```text
//! pair-client 10.8.0.1 --+-- pair-first  10.8.0.2, and as master 10.8.0.100
//!                        +-- pair-second 10.8.0.3, and as master 10.8.0.100
//!                        +-- pair-web1   10.8.0.11, 10.8.0.100 (not announced)
//!                        +-- pair-web2   10.8.0.12, 10.8.0.100 (not announced)
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use lvs::ipvs::IpvsDaemonState;

use super::sync::enter_peer;
use super::traffic::{ip, set, within};
use super::wire::Wire;
use super::{TestProcess, client, proc_net, restart, wait_for};
use crate::guest;

const VIRTUAL: &str = "10.8.0.100:80";
const MACHINES: [(&str, u8); 5] = [
    ("pair-client", 1),
    ("pair-first", 2),
    ("pair-second", 3),
    ("pair-web1", 11),
    ("pair-web2", 12),
];
const SERVERS: [&str; 2] = ["pair-web1", "pair-web2"];

/// The octets of a block.
const BLOCK: usize = 40_000;

/// Returns how many blocks half of the download has, which is 60 MB long: many times what can be on its way.
fn half() -> u64 {
    if guest::is_emulated() { 250 } else { 750 }
}

/// Returns this block of the download, in which each eight octets are another number.
fn block(number: u64) -> Vec<u8> {
    let words = BLOCK as u64 / 8;
    (number * words..(number + 1) * words).flat_map(u64::to_be_bytes).collect()
}

/// Starts a server that sends each client one half, and the other when somebody else comes to the barrier.
fn serve(name: &'static str, is_told: Arc<Barrier>) {
    let (is_ready, ready) = mpsc::channel();
    thread::spawn(move || {
        enter_peer(name);
        let listener = TcpListener::bind("0.0.0.0:80").expect("a listener");
        is_ready.send(()).expect("somebody waits");
        for connection in listener.incoming() {
            let mut stream = connection.expect("a connection");
            for number in 0..2 * half() {
                if number == half() {
                    is_told.wait();
                }
                if stream.write_all(&block(number)).is_err() {
                    break;
                }
            }
        }
    });
    ready.recv().expect("the server starts");
}

/// Reads the download, which must be what the server sends, and tells when it has the first half.
fn download(first_half: &mpsc::Sender<SocketAddr>) -> io::Result<()> {
    let mut stream = TcpStream::connect(VIRTUAL)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut received = vec![0; BLOCK];
    for number in 0..2 * half() {
        if number == half() {
            first_half.send(stream.local_addr()?).expect("somebody waits");
        }
        stream.read_exact(&mut received)?;
        assert!(received == block(number), "block {number} is another");
    }
    match stream.read(&mut received)? {
        0 => Ok(()),
        more => panic!("{more} octets too many"),
    }
}

fn start_director(name: &'static str, priority: u8, lines: &str) -> TestProcess {
    let config = format!(
        "[[service]]\nname = \"web\"\nlisten = \"{VIRTUAL}\"\nengine = \"ipvs\"\nscheduler = \"mh\"\n\
         [[service.server]]\naddress = \"10.8.0.11:80\"\nmethod = \"dr\"\n\
         [[service.server]]\naddress = \"10.8.0.12:80\"\nmethod = \"dr\"\n\
         [vrrp]\ninterface = \"eth0\"\nvirtual_router_id = 51\npriority = {priority}\n\
         advert_interval = \"100ms\"\naddresses = [\"10.8.0.100/24\"]\n{lines}\
         [admin]\nlisten = \"127.0.0.1:9000\"\n"
    );
    within(name, move || restart::start_director(&config))
}

/// Waits until a director has the virtual address, and then until it has a service.
fn wait_for_master(name: &'static str) {
    within(name, || {
        wait_for(|| proc_net("fib_trie").contains("10.8.0.100").then_some(()));
        wait_for(|| (client().services().expect("a list").len() == 1).then_some(()));
    });
}

/// Waits until a director's kernel runs this daemon, and no other.
fn wait_for_daemon(name: &'static str, state: IpvsDaemonState) {
    within(name, move || {
        wait_for(|| {
            let daemons = client().daemons().expect("a list");
            let running = daemons.iter().map(|it| (it.state, it.interface.as_str(), it.sync_id));
            running.eq([(state, "eth0", 7)]).then_some(())
        });
    });
}

/// Tells whether a director's kernel knows this client's connection as an established one.
fn knows(name: &'static str, client: SocketAddr) -> bool {
    let row = format!("TCP 0A080001 {:04X} 0A080064 0050 ", client.port());
    let is_it = move |line: &str| line.starts_with(&row) && line.contains("ESTABLISHED");
    within(name, move || proc_net("ip_vs_conn").lines().any(is_it))
}

/// Checks what `lvs ctl list -c` prints of a client's connection in a director's namespace.
#[cfg(feature = "cli")]
fn check_listed(name: &'static str, client: SocketAddr, origin: &str) {
    let list = within(name, || super::run("lvs", "ctl list -c web"));
    let rows = list.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row[1] == client.to_string());
    let row = row.unwrap_or_else(|| panic!("{client} is not listed: {list}"));
    assert_eq!([row[0], row[2], row[4], row[5]], ["web", VIRTUAL, "-", "ESTABLISHED"], "{list}");
    assert!(["10.8.0.11:80", "10.8.0.12:80"].contains(&row[3]), "{list}");
    assert_eq!(row[7], origin, "{list}");
}

/// Kills the active director, and pulls its plug, in the midst of a download. Returns how that ends.
fn lose_the_active_director(lines: &str, is_synchronized: bool) -> io::Result<()> {
    let _wire = Wire::connect(&MACHINES);
    for name in SERVERS {
        within(name, || {
            set("ipv4/conf/all/arp_ignore", "1");
            set("ipv4/conf/all/arp_announce", "2");
        });
        ip(&format!("{name}: address add 10.8.0.100/32 dev lo"));
    }
    let is_told = Arc::new(Barrier::new(2));
    for name in SERVERS {
        serve(name, Arc::clone(&is_told));
    }
    let mut first = start_director("pair-first", 200, lines);
    wait_for_master("pair-first");
    let _second = start_director("pair-second", 100, lines);
    if is_synchronized {
        wait_for_daemon("pair-first", IpvsDaemonState::Master);
        wait_for_daemon("pair-second", IpvsDaemonState::Backup);
    }
    let (sender, first_half) = mpsc::channel();
    let downloading = thread::spawn(move || {
        enter_peer("pair-client");
        download(&sender)
    });
    let client = first_half.recv().expect("the first half arrives");
    assert!(knows("pair-first", client), "the download goes through the director");
    if is_synchronized {
        wait_for(|| knows("pair-second", client).then_some(()));
        #[cfg(feature = "cli")]
        for (name, origin) in [("pair-first", "local"), ("pair-second", "sync")] {
            check_listed(name, client, origin);
        }
    } else {
        assert!(!knows("pair-second", client), "nobody told of it");
    }
    first.kill();
    ip("wire: link set pair-first down");
    // No acknowledgement arrives any more: the server sends, but cannot send everything.
    is_told.wait();
    let result = downloading.join().expect("the octets are the right ones");
    wait_for_master("pair-second");
    if is_synchronized {
        wait_for_daemon("pair-second", IpvsDaemonState::Master);
        // The kernel of the first one still has the daemon that its director left.
        ip("wire: link set pair-first up");
        let _first = start_director("pair-first", 50, lines);
        wait_for_daemon("pair-first", IpvsDaemonState::Backup);
        wait_for_daemon("pair-second", IpvsDaemonState::Master);
    }
    result
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_download_outlives_the_active_director() {
    if !guest::enter() {
        return;
    }
    let sync = "[ipvs]\nsync = { interface = \"eth0\", id = 7 }\n";
    lose_the_active_director(sync, true).expect("the download is whole");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_download_outlives_the_active_director_by_hash_without_synchronization() {
    if !guest::enter() {
        return;
    }
    let sloppy = "[ipvs]\nsloppy_tcp = true\n";
    lose_the_active_director(sloppy, false).expect("the download is whole");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_download_is_cut_with_the_active_director_if_the_other_was_not_told() {
    if !guest::enter() {
        return;
    }
    let error =
        lose_the_active_director("", false).expect_err("the new director has no connection");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
