//! What outlives a director whose services the kernel forwards: its stop, its death, its restart.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig};

use super::director::{Client, Server, VIRTUAL, ask, config_text, expected, in_namespace, until};
use super::{TestProcess, ipvsadm, saved};
use crate::guest;

/// The variable with the configuration of a director that a test starts as a process of its own.
const CONFIG: &str = "LVS_TEST_CONFIG";

/// Starts a director in a process of its own, in the network namespace of this thread.
pub(super) fn start_director(config: &str) -> TestProcess {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = format!("/run/director-{}.toml", NUMBER.fetch_add(1, Ordering::Relaxed));
    fs::write(&path, config).expect("a writable folder");
    TestProcess::start("inside::restart::the_director_of_a_test", CONFIG, &path)
}

/// Serves until it is killed; for other tests, which start it.
#[test]
#[ignore = "started by other tests"]
fn the_director_of_a_test() {
    let Some(path) = std::env::var_os(CONFIG) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let config = DirectorConfig::load(&path).expect("a valid configuration");
        let director = Director::start(config).await.expect("IPVS is there");
        director.wait_ended().await;
    });
}

/// Clients that are served one after the other.
struct Load {
    is_stopped: Arc<AtomicBool>,
    served: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Starts clients that connect one after the other.
    fn start() -> Self {
        Self::of(|| {
            Client::connect().ask();
        })
    }

    /// Starts something that is done again and again; a client that is not served panics, which fails the
    /// test.
    fn of(mut serve_client: impl FnMut() + Send + 'static) -> Self {
        let (is_stopped, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stop, count) = (Arc::clone(&is_stopped), Arc::clone(&served));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                serve_client();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { is_stopped, served, thread }
    }

    /// Waits until this many more clients were served.
    async fn more(&self, clients: u32) {
        let wanted = self.served.load(Ordering::Relaxed) + clients;
        until("clients are served", || {
            self.served.load(Ordering::Relaxed) >= wanted || self.thread.is_finished()
        })
        .await;
    }

    fn stop(self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("every client was served");
    }
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn clients_are_served_while_the_director_is_dead_and_when_it_comes_back() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b, c] = [b'a', b'b', b'c'].map(Server::start);
        let of_udp = udp_service(start_echo());
        let all = |servers: &[(&Server, u32)]| {
            let mut lines = expected(servers);
            lines.extend(of_udp.lines.clone());
            lines.sort();
            lines
        };
        let text = config_text("\"ipvs\"", &[(&a, ""), (&b, "")]) + &of_udp.config;
        let mut director = start_director(&text);
        until("the services are there", || saved() == all(&[(&a, 1), (&b, 1)])).await;
        let mut held = Client::connect();
        let letter = held.ask();
        // New connections, packets of an old one, a flow of datagrams, none of which is sent again, and new
        // flows.
        let flow = connect_udp();
        let loads = [
            Load::start(),
            Load::of(move || assert_eq!(held.ask(), letter)),
            Load::of(move || ask_by(&flow)),
            Load::of(|| ask_by(&connect_udp())),
        ];
        let more = async || {
            for load in &loads {
                load.more(50).await;
            }
        };
        more().await;
        director.kill();
        more().await;
        assert_eq!(saved(), all(&[(&a, 1), (&b, 1)]));

        // What changed meanwhile is made so by the next one, and no client notices.
        ipvsadm(&format!("-e -t {VIRTUAL} -r {} -m -w 0", b.address));
        let text = config_text("\"ipvs\"", &[(&a, "weight = 2"), (&b, ""), (&c, "")]);
        let _director = start_director(&(text + &of_udp.config));
        let wanted = all(&[(&a, 2), (&b, 1), (&c, 1)]);
        until("the table is as configured", || saved() == wanted).await;
        more().await;
        for load in loads {
            load.stop();
        }
    });
}

/// A service of UDP with one server: its configuration, and what `ipvsadm-save` writes of it.
struct UdpService {
    config: String,
    lines: [String; 2],
}

const UDP_VIRTUAL: &str = "10.0.0.1:53";

fn udp_service(server: SocketAddr) -> UdpService {
    let config = format!(
        "[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nlisten = \"{UDP_VIRTUAL}\"\n\
         engine = \"ipvs\"\nscheduler = \"rr\"\n[[service.server]]\naddress = \"{server}\"\n"
    );
    let lines =
        [format!("-A -u {UDP_VIRTUAL} -s rr"), format!("-a -u {UDP_VIRTUAL} -r {server} -m -w 1")];
    UdpService { config, lines }
}

/// Starts a server that sends each datagram back.
fn start_echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((len, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], client);
        }
    });
    address
}

fn connect_udp() -> UdpSocket {
    let socket = UdpSocket::bind("10.0.0.1:0").expect("a free port");
    socket.connect(UDP_VIRTUAL).expect("an address");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a valid time");
    socket
}

/// Sends a datagram, and receives it: one that is lost either way ends the test.
fn ask_by(flow: &UdpSocket) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let question = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    flow.send(&question).expect("sent");
    let mut answer = [0; 8];
    let len = flow.recv(&mut answer).expect("no datagram is lost");
    assert_eq!(answer[..len], question);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_director_that_keeps_its_services_leaves_them_to_the_next_one() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b] = [b'a', b'b'].map(Server::start);
        let servers = [(&a, ""), (&b, "")];
        let text = config_text("\"ipvs\"", &servers) + "[ipvs]\nkeep_at_stop = true\n";
        let config = || DirectorConfig::parse(&text).expect("a valid configuration");
        let director = Director::start(config()).await.expect("IPVS is there");
        let mut held = Client::connect();
        let letter = held.ask();
        let load = Load::start();
        director.stop(Duration::from_secs(5)).await;
        load.more(20).await;
        assert_eq!(saved(), expected(&[(&a, 1), (&b, 1)]));
        let director = Director::start(config()).await.expect("IPVS is there");
        load.more(20).await;
        load.stop();
        assert_eq!(held.ask(), letter);
        assert_eq!(ask(2), "ab");

        // Without the key, a stop drains: the connection that is open is waited for, and then cut.
        let text = config_text("\"ipvs\"", &servers);
        let config = DirectorConfig::parse(&text).expect("a valid configuration");
        director.reload(config).await.expect("valid");
        let report = director.stop(Duration::from_millis(50)).await;
        assert_eq!(report.cut, 1);
        assert_eq!(saved(), [""; 0]);
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn servers_that_drain_change_weight_or_are_added_lose_no_client() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b, c] = [b'a', b'b', b'c'].map(Server::start);
        let text = |servers: &[(&Server, &str)]| {
            let text = config_text("\"ipvs\"", servers);
            DirectorConfig::parse(&text).expect("a valid configuration")
        };
        let director = Director::start(text(&[(&a, ""), (&b, "")])).await.expect("IPVS is there");
        let load = Load::start();
        for _ in 0..3 {
            for servers in [
                &[(&a, ""), (&b, ""), (&c, "")][..],
                &[(&a, "weight = 5"), (&b, ""), (&c, "")],
                &[(&a, "weight = 5"), (&b, "weight = 0"), (&c, "")],
                &[(&c, "")],
                &[(&b, ""), (&a, "")],
            ] {
                director.reload(text(servers)).await.expect("valid");
                load.more(10).await;
            }
        }
        // A server that is quiesced and then fails is missed by nobody.
        director.reload(text(&[(&b, ""), (&a, "weight = 0")])).await.expect("valid");
        until("it has no weight", || saved().iter().any(|line| line.ends_with("-w 0"))).await;
        a.stop();
        load.more(20).await;
        load.stop();
        director.stop(Duration::ZERO).await;
    });
}
