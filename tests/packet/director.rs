//! A director whose services the engine serves.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use lvs::director::{BackendAdminState, Director, DirectorConfig, ReloadPart, ServerChange};
use rustix::fd::AsFd as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{SERVERS, VIRTUAL, World, socket_address};

/// No step of these tests takes so long, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const MACHINES: [&str; 2] = ["a", "b"];

/// A server that answers each octet with the name of its machine.
pub(crate) struct NamedServer {
    address: SocketAddr,
    listener: TcpListener,
}

impl NamedServer {
    pub(crate) fn start(world: &World, number: usize) -> Self {
        let (machine, address) = (MACHINES[number], socket_address(SERVERS[0][number], 8080));
        let listener = world.within(machine, || TcpListener::bind(address).expect("a listener"));
        let accepting = listener.try_clone().expect("a duplicate");
        let name = machine.as_bytes()[0];
        thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                thread::spawn(move || serve(client, name));
            }
        });
        Self { address, listener }
    }

    /// Refuses new connections. Those that are open go on.
    fn stop(&self) {
        rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both)
            .expect("it listens");
    }
}

fn serve(mut client: TcpStream, name: u8) {
    let mut octet = [0];
    while client.read_exact(&mut octet).is_ok() {
        if client.write_all(&[name]).is_err() {
            return;
        }
    }
}

/// A client's connection to the service.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) fn connect(world: &World) -> Self {
        let address = socket_address(VIRTUAL[0], 80);
        let stream = world.within("client", || TcpStream::connect_timeout(&address, PATIENCE));
        let stream = stream.expect("the service accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(stream)
    }

    /// Returns the name of the machine that serves the connection.
    #[track_caller]
    pub(crate) fn ask(&mut self) -> char {
        self.0.write_all(b"?").expect("the connection is open");
        let mut name = [0];
        self.0.read_exact(&mut name).expect("the server answers");
        char::from(name[0])
    }
}

/// Returns the machines that serve this many new connections, in the order of their names.
#[track_caller]
pub(crate) fn ask(world: &World, times: usize) -> String {
    let mut names: Vec<_> = (0..times).map(|_| Client::connect(world).ask()).collect();
    names.sort_unstable();
    names.into_iter().collect()
}

/// Returns the configuration of a service with both servers, with more keys of the table `[packet]`.
pub(crate) fn config_text(world: &World, engine: &str, packet: &str) -> String {
    let mut text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\
         [packet]\nflows = 4096\nipv6_flows = 4096\nalive_for = \"1m\"\npin_folder = \"{}\"\n{packet}\n\
         [[service]]\nname = \"web\"\nlisten = \"{}\"\nengine = {engine}\nscheduler = \"rr\"\n\
         health = {{ type = \"tcp\", interval = \"500ms\", rise = 1, fall = 3 }}\n",
        world.pin_folder().display(),
        socket_address(VIRTUAL[0], 80),
    );
    for server in SERVERS[0] {
        let address = socket_address(server, 8080);
        text.push_str(&format!("[[service.server]]\naddress = \"{address}\"\n"));
    }
    text
}

fn parse(text: &str) -> DirectorConfig {
    DirectorConfig::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs a test on the director's machine, in a runtime of one thread.
pub(crate) fn on_director(world: &World, test: impl AsyncFnOnce() + Send) {
    world.within("director", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test());
    });
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let polled = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("not seen: {what}"));
}

fn server_state(director: &Director, number: usize) -> &'static str {
    director.status().services[0].servers[number].state
}

/// Starts a director whose servers have passed their checks.
pub(crate) async fn start(text: &str) -> Director {
    let director = Director::start(parse(text)).await.expect("the director starts");
    for number in [0, 1] {
        until("the check has passed", || server_state(&director, number) == "eligible").await;
    }
    director
}

fn engine(director: &Director) -> &'static str {
    director.status().services[0].engine
}

/// Returns the value of a metric of the engine; `None` without the engine.
async fn metric(director: &Director, name: &str) -> Option<u64> {
    let admin = director.admin_address().expect("an admin address");
    let mut stream = tokio::net::TcpStream::connect(admin).await.expect("the admin server listens");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let mut lines = answer.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(|value| value.parse().expect("a number"))
}

/// Waits until the scheduler was asked for this many connections.
async fn until_asked(director: &Director, times: u64) {
    let polled = async {
        while metric(director, "lvs_packet_upcalls_total").await.is_none_or(|count| count < times) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polled).await.expect("the scheduler was asked");
}

#[test]
fn requests_are_served_until_the_check_of_a_server_fails() {
    let Some(world) = World::build() else { return };
    let servers = [NamedServer::start(&world, 0), NamedServer::start(&world, 1)];
    on_director(&world, async || {
        let director = start(&config_text(&world, "\"packet\"", "")).await;
        assert_eq!(engine(&director), "packet");
        assert_eq!(ask(&world, 6), "aaabbb");
        until_asked(&director, 6).await;
        let mut open = [Client::connect(&world), Client::connect(&world)];
        let mut names: Vec<_> = open.iter_mut().map(Client::ask).collect();
        until("both are counted", || {
            director.status().services[0].servers.iter().all(|server| server.active == 1)
        })
        .await;
        servers[0].stop();
        until("the check has failed", || server_state(&director, 0) == "down").await;
        assert_eq!(ask(&world, 4), "bbbb");
        let mut after: Vec<_> = open.iter_mut().map(Client::ask).collect();
        assert_eq!(after, names, "open connections go on");
        names.sort_unstable();
        after.sort_unstable();
        assert_eq!(after, ['a', 'b']);
        drop(open);
        director.stop(Duration::ZERO).await;
    });
}

#[test]
fn a_server_that_drains_keeps_its_connections_and_gets_no_new_ones() {
    let Some(world) = World::build() else { return };
    let servers = [NamedServer::start(&world, 0), NamedServer::start(&world, 1)];
    on_director(&world, async || {
        let director = start(&config_text(&world, "\"packet\"", "")).await;
        let mut open = [Client::connect(&world), Client::connect(&world)];
        let names = open.each_mut().map(Client::ask);
        assert_ne!(names[0], names[1], "by turns");
        let address = servers[0].address.to_string();
        let draining = ServerChange::new().with_state(BackendAdminState::Draining);
        director.change_server("web", &address, draining).expect("there is this server");
        assert_eq!(ask(&world, 4), "bbbb");
        assert_eq!(open.each_mut().map(Client::ask), names, "open connections go on");
        drop(open);
        until("the drained server has no connection", || {
            director.status().services[0].servers[0].active == 0
        })
        .await;
        let enabled = ServerChange::new().with_state(BackendAdminState::Enabled);
        director.change_server("web", &address, enabled).expect("there is this server");
        assert_eq!(ask(&world, 4), "aabb");
        director.stop(Duration::ZERO).await;
    });
}

#[test]
fn a_reload_changes_the_engine_and_keeps_connections() {
    let Some(world) = World::build() else { return };
    let _servers = [NamedServer::start(&world, 0), NamedServer::start(&world, 1)];
    on_director(&world, async || {
        let text = |engine| config_text(&world, engine, "");
        let director = start(&text("\"proxy\"")).await;
        assert_eq!(engine(&director), "proxy");
        assert_eq!(metric(&director, "lvs_packet_upcalls_total").await, None);
        let mut by_proxy = Client::connect(&world);
        let first = by_proxy.ask();

        let summary = director.reload(parse(&text("\"packet\""))).await.expect("it is possible");
        assert!(summary.is_complete(), "{summary}");
        assert_eq!(engine(&director), "packet");
        assert_eq!(by_proxy.ask(), first, "the proxy goes on with its connection");
        let mut by_packet = Client::connect(&world);
        let second = by_packet.ask();
        assert_eq!(ask(&world, 4), "aabb");
        until_asked(&director, 5).await;

        let summary = director.reload(parse(&text("\"proxy\""))).await.expect("it is possible");
        assert!(summary.is_complete(), "{summary}");
        assert_eq!(engine(&director), "proxy");
        assert_eq!(by_packet.ask(), second, "the packet engine goes on with its connection");
        assert_eq!(by_proxy.ask(), first);
        assert_eq!(ask(&world, 4), "aabb");
        assert_eq!((by_packet.ask(), by_proxy.ask()), (second, first));
        drop((by_packet, by_proxy));
        director.stop(Duration::ZERO).await;
    });
}

#[test]
fn a_reload_keeps_flows_and_says_what_needs_a_restart() {
    let Some(world) = World::build() else { return };
    let _servers = [NamedServer::start(&world, 0), NamedServer::start(&world, 1)];
    on_director(&world, async || {
        let text = config_text(&world, "[\"packet\", \"proxy\"]", "");
        let director = start(&text).await;
        assert_eq!(engine(&director), "packet", "the first of the list");
        let mut open = Client::connect(&world);
        let name = open.ask();
        // Another scheduler and a sorry server: the service is replaced in place.
        let other = text.replace("\"rr\"", "\"wlc\"\nsorry_server = \"10.2.0.2:8080\"");
        let summary = director.reload(parse(&other)).await.expect("it is possible");
        assert!(summary.is_complete(), "{summary}");
        assert_eq!(open.ask(), name, "the connection goes on");
        assert_eq!(ask(&world, 1).len(), 1);

        let other = text.replace("\nflows = 4096", "\nflows = 8192\nkeep_at_stop = true");
        let summary = director.reload(parse(&other)).await.expect("it is possible");
        let failures = summary.failures();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].part, ReloadPart::Packet);
        let reason = failures[0].to_string();
        assert!(reason.contains("keeps its values of flows: restart the director"), "{reason}");
        assert_eq!(director.status().failed_parts[0].part, "[packet]");
        assert_eq!(open.ask(), name);

        let summary = director.reload(parse(&text)).await.expect("it is possible");
        assert!(summary.is_complete(), "{summary}");
        assert!(director.status().failed_parts.is_empty());
        drop(open);
        director.stop(Duration::ZERO).await;
    });
}

#[test]
fn the_next_engine_of_the_list_serves_where_the_first_cannot() {
    let Some(world) = World::build() else { return };
    let _servers = [NamedServer::start(&world, 0), NamedServer::start(&world, 1)];
    on_director(&world, async || {
        let folder = format!("\"{}\"", world.pin_folder().display());
        let text =
            config_text(&world, "[\"packet\", \"proxy\"]", "").replace(&folder, "\"/proc/lvs\"");
        let director = start(&text).await;
        assert_eq!(engine(&director), "proxy");
        assert_eq!(ask(&world, 2), "ab");
        director.stop(Duration::ZERO).await;
        let alone = text.replace("[\"packet\", \"proxy\"]", "\"packet\"");
        let error = Director::start(parse(&alone)).await.expect_err("there is no other engine");
        let error = error.to_string();
        assert!(error.contains("service web") && error.contains("/proc/lvs"), "{error}");
    });
}

#[test]
fn flows_outlive_a_director_that_keeps_them() {
    let Some(world) = World::build() else { return };
    let _servers = [NamedServer::start(&world, 0), NamedServer::start(&world, 1)];
    let mut open = None;
    on_director(&world, async || {
        let director = start(&config_text(&world, "\"packet\"", "keep_at_stop = true")).await;
        let mut client = Client::connect(&world);
        let name = client.ask();
        director.stop(Duration::ZERO).await;
        assert_eq!(client.ask(), name, "the connection goes on");
        // The table chooses: whom is not said.
        let mut decided_by_table = Client::connect(&world);
        decided_by_table.ask();
        open = Some((client, name));
    });
    let (mut client, name) = open.expect("a connection");
    on_director(&world, async || {
        assert_eq!(client.ask(), name, "without a director");
        let director = start(&config_text(&world, "\"packet\"", "")).await;
        assert_eq!(client.ask(), name, "with the next director");
        until("the next director counts the connection", || {
            let status = director.status();
            status.services[0].servers.iter().map(|server| server.active).sum::<u32>() >= 1
        })
        .await;
        assert_eq!(ask(&world, 4), "aabb");
        drop(client);
        director.stop(Duration::ZERO).await;
        until("nothing is left in the kernel", || !world.pin_folder().exists()).await;
    });
}
