//! A director whose services the kernel forwards.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use lvs::director::{BackendAdminState, Director, DirectorConfig, ServerChange};

use super::{ipvsadm, run, saved};
use crate::guest;

pub(super) const VIRTUAL: &str = "10.0.0.1:80";
const PATIENCE: Duration = Duration::from_secs(30);

/// A real server that answers each line with its letter, until it is stopped. It is reached under the
/// director's own address, as network address translation allows.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    listener: TcpListener,
}

impl Server {
    pub(super) fn start(letter: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let accepting = listener.try_clone().expect("a duplicate");
        thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                thread::spawn(move || serve(client, letter));
            }
        });
        Self { address, listener }
    }

    /// Refuses new connections.
    pub(super) fn stop(&self) {
        let socket = rustix::fd::AsFd::as_fd(&self.listener);
        rustix::net::shutdown(socket, rustix::net::Shutdown::Both).expect("it listens");
    }
}

fn serve(mut client: TcpStream, letter: u8) {
    let mut line = [0];
    while client.read(&mut line).is_ok_and(|length| length > 0) {
        if client.write_all(&[letter]).is_err() {
            return;
        }
    }
}

/// A client's connection to the virtual service.
pub(super) struct Client(TcpStream);

impl Client {
    pub(super) fn connect() -> Self {
        let connection = TcpStream::connect(VIRTUAL).expect("the service accepts");
        connection.set_read_timeout(Some(PATIENCE)).expect("a valid time");
        Self(connection)
    }

    /// Returns the letter of the server.
    #[track_caller]
    pub(super) fn ask(&mut self) -> char {
        self.0.write_all(b"\n").expect("the connection is open");
        let mut letter = [0];
        self.0.read_exact(&mut letter).expect("the server answers");
        char::from(letter[0])
    }
}

/// Returns the letters of the servers of this many connections, in order.
pub(super) fn ask(times: usize) -> String {
    let mut letters: Vec<_> = (0..times).map(|_| Client::connect().ask()).collect();
    letters.sort_unstable();
    letters.into_iter().collect()
}

pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let poll = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, poll).await.is_err() {
        panic!("timed out waiting until {what}: {:?}", saved());
    }
}

fn config(engine: &str, servers: &[(&Server, &str)]) -> DirectorConfig {
    DirectorConfig::parse(&config_text(engine, servers)).expect("a valid configuration")
}

/// Returns the configuration of a service with these servers, each with more lines.
pub(super) fn config_text(engine: &str, servers: &[(&Server, &str)]) -> String {
    let mut text = format!(
        "[[service]]\nname = \"web\"\nlisten = \"{VIRTUAL}\"\nengine = {engine}\n\
         scheduler = \"rr\"\n\
         health = {{ type = \"tcp\", interval = \"50ms\", rise = 1, fall = 5 }}\n"
    );
    for (server, lines) in servers {
        text += &format!("[[service.server]]\naddress = \"{}\"\n{lines}\n", server.address);
    }
    text
}

/// Returns what `ipvsadm-save` writes of these servers with these weights.
pub(super) fn expected(servers: &[(&Server, u32)]) -> Vec<String> {
    let mut lines = vec![format!("-A -t {VIRTUAL} -s rr")];
    lines.extend(
        servers.iter().map(|(server, weight)| {
            format!("-a -t {VIRTUAL} -r {} -m -w {weight}", server.address)
        }),
    );
    lines.sort();
    lines
}

/// Runs a test on a runtime, in a network namespace that has the virtual address.
pub(super) fn in_namespace(test: impl Future<Output = ()>) {
    run("ip", "address add 10.0.0.1/32 dev lo");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn the_kernel_has_what_the_director_says_and_serves_it() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b, c] = [b'a', b'b', b'c'].map(Server::start);
        let servers = [(&a, ""), (&b, "weight = 2"), (&c, "")];
        let director = Director::start(config("\"ipvs\"", &servers)).await.expect("IPVS is there");
        assert_eq!(saved(), expected(&[(&a, 1), (&b, 2), (&c, 1)]));
        assert_eq!(director.status().services[0].engine, "ipvs");
        assert_eq!(ask(6), "aabbcc");

        // By hand: a weight, and a drain in which a connection goes on.
        let mut held = Client::connect();
        let letter = held.ask();
        let drained = [(&a, 'a'), (&b, 'b'), (&c, 'c')].into_iter().find(|it| it.1 == letter);
        let drained = drained.expect("one of them").0;
        let address = drained.address.to_string();
        let drain = ServerChange::new().with_state(BackendAdminState::Draining);
        director.change_server("web", &address, drain).expect("it is there");
        let is_quiet = || saved().contains(&format!("-a -t {VIRTUAL} -r {address} -m -w 0"));
        until("the drained server has weight 0", is_quiet).await;
        assert!(!ask(6).contains(letter));
        assert_eq!(held.ask(), letter);
        let enable = ServerChange::new().with_state(BackendAdminState::Enabled).with_weight(7);
        director.change_server("web", &address, enable).expect("it is there");
        let is_back = || saved().contains(&format!("-a -t {VIRTUAL} -r {address} -m -w 7"));
        until("the server has its weight", is_back).await;

        // A server that fails gets no connections, and one that is added does.
        let d = Server::start(b'd');
        director.add_server("web", d.address.into()).expect("a new one");
        until("the new server serves", || ask(8).contains('d')).await;
        drained.stop();
        until("the failed server gets nothing", is_quiet).await;
        assert!(!ask(6).contains(letter));
        assert_eq!(held.ask(), letter, "its connections go on");

        // Counters: those of the kernel, and none that it does not have.
        let accepted = || director.status().services[0].totals.accepted;
        until("connections are counted", || accepted() > 25).await;
        let status = &director.status().services[0];
        assert_eq!(status.totals.refused, None);
        assert!(status.totals.bytes_to_clients.is_some_and(|bytes| bytes > 0));
        assert!(status.servers.iter().all(|server| server.method == "nat"));

        drop(held);
        director.stop(Duration::ZERO).await;
        assert_eq!(saved(), [""; 0]);
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn what_others_change_is_repaired_and_what_is_theirs_is_left() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b] = [b'a', b'b'].map(Server::start);
        ipvsadm("-A -t 10.0.0.9:80 -s wlc");
        ipvsadm("-a -t 10.0.0.9:80 -r 127.0.0.1:1 -m");
        ipvsadm("--start-daemon backup --mcast-interface lo");
        let daemons = ipvsadm("-L --daemon");
        assert!(daemons.contains("backup"), "{daemons}");
        let foreign = saved();
        // The director that died before left half of the service.
        ipvsadm(&format!("-A -t {VIRTUAL} -s sh"));
        ipvsadm(&format!("-a -t {VIRTUAL} -r 127.0.0.1:9 -m"));
        let servers = [(&a, ""), (&b, "")];
        let director = Director::start(config("\"ipvs\"", &servers)).await.expect("IPVS is there");
        let mut expected = expected(&[(&a, 1), (&b, 1)]);
        expected.extend(foreign.clone());
        expected.sort();
        until("the service is as configured", || saved() == expected).await;
        for change in [
            format!("-d -t {VIRTUAL} -r {}", a.address),
            format!("-e -t {VIRTUAL} -r {} -m -w 9", b.address),
            format!("-E -t {VIRTUAL} -s wlc"),
            format!("-D -t {VIRTUAL}"),
        ] {
            ipvsadm(&change);
            assert_ne!(saved(), expected, "{change}");
            until("it is repaired", || saved() == expected).await;
        }
        assert_eq!(ask(4), "aabb");
        director.stop(Duration::ZERO).await;
        assert_eq!(saved(), foreign);
        assert_eq!(ipvsadm("-L --daemon"), daemons);
        ipvsadm("--stop-daemon backup");
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn connections_stay_in_their_engine_when_a_reload_changes_it() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b] = [b'a', b'b'].map(Server::start);
        let servers = [(&a, ""), (&b, "")];
        let director = Director::start(config("\"proxy\"", &servers)).await.expect("a free port");
        let mut proxied = tokio::task::spawn_blocking(Client::connect).await.expect("served");
        proxied = ask_elsewhere(proxied).await;
        assert_eq!(saved(), [""; 0]);

        director.reload(config("[\"ipvs\", \"proxy\"]", &servers)).await.expect("IPVS is there");
        assert_eq!(saved(), expected(&[(&a, 1), (&b, 1)]));
        assert_eq!(ask(4), "aabb");
        proxied = ask_elsewhere(proxied).await;
        let mut forwarded = Client::connect();
        let letter = forwarded.ask();

        // The kernel's connection goes on beside new ones of the proxy, and then the service goes.
        director.reload(config("\"proxy\"", &servers)).await.expect("a free port");
        assert_eq!(director.status().services[0].engine, "proxy");
        let is_left = || saved().contains(&format!("-a -t {VIRTUAL} -r {VIRTUAL} -g -w 1"));
        until("the kernel passes new connections to the proxy", is_left).await;
        let passed_on = tokio::task::spawn_blocking(Client::connect).await.expect("served");
        let passed_on = ask_elsewhere(passed_on).await;
        assert_eq!(forwarded.ask(), letter);
        drop(forwarded);
        until("the kernel's service is gone", || saved().is_empty()).await;
        drop(ask_elsewhere(passed_on).await);
        drop(ask_elsewhere(proxied).await);
        let other = tokio::task::spawn_blocking(Client::connect).await.expect("served");
        drop(ask_elsewhere(other).await);
        director.stop(Duration::ZERO).await;
    });
}

/// Asks on another thread: the director, which proxies, is on this one.
async fn ask_elsewhere(mut client: Client) -> Client {
    let ask = move || {
        client.ask();
        client
    };
    tokio::task::spawn_blocking(ask).await.expect("served")
}
