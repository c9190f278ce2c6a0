//! Checks of the virtual address on the servers: they go the way of the clients' packets.
//!
//! ```text
//! path-client 10.8.0.1 --+-- path-director 10.8.0.2, 10.8.0.100 (virtual)
//!                        +-- path-web 10.8.0.11, 10.8.0.100 (not announced)
//! ```
//! and the same with `fd08::`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lvs::director::{Director, DirectorConfig};

use super::director::until;
use super::sync::enter_peer;
use super::traffic::{ip, set, within};
use super::wire::Wire;
use super::{ipvsadm, saved};
use crate::guest;

const MACHINES: [(&str, u8); 3] = [("path-client", 1), ("path-director", 2), ("path-web", 11)];
const LIMIT: Duration = Duration::from_secs(10);

/// The first of the marks that a director has by default.
const FIRST_MARK: u32 = 0x6c76_0000;

/// An address family of the test.
#[derive(Clone, Copy)]
struct Family {
    virtual_address: &'static str,
    prefix: u8,
    server: &'static str,
}

const V4: Family = Family { virtual_address: "10.8.0.100", prefix: 32, server: "10.8.0.11:80" };
const V6: Family = Family { virtual_address: "fd08::100", prefix: 128, server: "[fd08::11]:80" };

impl Family {
    fn listen(self) -> String {
        match self.virtual_address.contains(':') {
            true => format!("[{}]:80", self.virtual_address),
            false => format!("{}:80", self.virtual_address),
        }
    }

    /// Gives a machine the virtual address, or takes it.
    fn change(self, action: &str, machine: &str, interface: &str) {
        let Self { virtual_address, prefix, .. } = self;
        // It must not be the source of the director's packets.
        let options = match (action, prefix) {
            ("add", 128) => " nodad preferred_lft 0",
            _ => "",
        };
        let address = format!("{virtual_address}/{prefix}");
        ip(&format!("{machine}: address {action} {address} dev {interface}{options}"));
    }

    fn config(self, method: &str) -> DirectorConfig {
        DirectorConfig::parse(&self.text(method)).expect("a valid configuration")
    }

    fn text(self, method: &str) -> String {
        let (listen, server) = (self.listen(), self.server);
        format!(
            "[[service]]\nname = \"web\"\nlisten = \"{listen}\"\nengine = \"ipvs\"\n\
             scheduler = \"wlc\"\nhealth = {{ type = \"tcp\", interval = \"250ms\", init = \"down\", \
             rise = 1, fall = 2, expect = \"web\", virtual_address = true }}\n\
             [[service.server]]\naddress = \"{server}\"\n{method}\n"
        )
    }
}

/// Connects the machines, and starts the server, which answers with a word.
fn build_world() -> Wire {
    let wire = Wire::connect(&MACHINES);
    within("path-web", || {
        set("ipv4/conf/all/arp_ignore", "1");
        set("ipv4/conf/all/arp_announce", "2");
    });
    let (is_ready, ready) = mpsc::channel();
    thread::spawn(move || {
        enter_peer("path-web");
        let listener = TcpListener::bind("[::]:80").expect("a listener");
        is_ready.send(()).expect("somebody waits");
        for connection in listener.incoming() {
            let _ = connection.and_then(|mut stream| stream.write_all(b"web"));
        }
    });
    ready.recv().expect("the server starts");
    wire
}

fn ask(address: &str) -> String {
    let address: SocketAddr = address.parse().expect("an address");
    let answer = TcpStream::connect_timeout(&address, LIMIT).and_then(|mut stream| {
        stream.set_read_timeout(Some(LIMIT))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    answer.unwrap_or_else(|error| error.to_string())
}

fn server_of(director: &Director) -> (&'static str, String) {
    let status = director.status();
    let server = &status.services[0].servers[0];
    (server.state, server.reason.clone().unwrap_or_default())
}

async fn until_server_is(director: &Director, state: &str, what: &str) {
    until(what, || server_of(director).0 == state).await;
}

/// Runs a test on a runtime in the director's namespace.
fn direct(test: impl Future<Output = ()> + Send + 'static) {
    within("path-director", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test);
    });
}

/// Takes the virtual address from the server and gives it back, while the server's own address is served.
async fn follow_the_address(director: &Director, family: Family, what: &str) {
    until_server_is(director, "eligible", &format!("{what}: the server is up")).await;
    family.change("del", "path-web", "lo");
    until_server_is(director, "down", &format!("{what}: it is down without the address")).await;
    let (_, reason) = server_of(director);
    let expected = format!("tcp check: virtual address {}: ", family.listen());
    assert!(reason.starts_with(&expected), "{what}: {reason}");
    let own = tokio::task::spawn_blocking(move || ask(family.server)).await;
    assert_eq!(own.expect("it does not panic"), "web", "{what}: a check of its own address");
    family.change("add", "path-web", "lo");
    until_server_is(director, "eligible", &format!("{what}: it is up again")).await;
}

async fn check(family: Family, method: &'static str) {
    let director = Director::start(family.config(method)).await.expect("IPVS is there");
    follow_the_address(&director, family, method).await;
    let answer =
        tokio::task::spawn_blocking(move || within("path-client", move || ask(&family.listen())));
    assert_eq!(answer.await.expect("it does not panic"), "web", "{method}: a client is served");
    director.stop(Duration::ZERO).await;
    assert_eq!(saved(), [""; 0], "{method}");
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_server_without_the_virtual_address_is_down_by_every_method() {
    if !guest::enter() {
        return;
    }
    let _wire = build_world();
    for family in [V4, V6] {
        family.change("add", "path-director", "eth0");
        family.change("add", "path-web", "lo");
    }
    ip("path-web: link set tunl0 up
        path-web: link set ip6tnl0 up
        path-web: fou add port 6080 gue");
    within("path-web", || {
        for interface in ["all", "tunl0"] {
            set(&format!("ipv4/conf/{interface}/rp_filter"), "0");
        }
    });
    direct(async {
        check(V6, "method = \"dr\"").await;
        check(V6, "method = \"tunnel\"").await;
        set("ipv4/conf/eth0/accept_local", "1");
        check(V4, "method = \"dr\"").await;
        check(V4, "method = \"tunnel\"").await;
        check(V4, "method = \"tunnel\"\ntunnel = { kind = \"gue\", port = 6080 }").await;
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn the_setting_is_named_without_which_the_kernel_drops_the_answers() {
    if !guest::enter() {
        return;
    }
    let _wire = build_world();
    V4.change("add", "path-web", "lo");
    direct(async {
        let config = || V4.config("method = \"dr\"");
        let refusal = || async {
            let error = Director::start(config()).await.expect_err("answers would be dropped");
            error.to_string()
        };
        // A standby does not have the address yet.
        let error = refusal().await;
        let text =
            "service web: the check of server 10.8.0.11:80 at the virtual address 10.8.0.100: ";
        let is_named =
            error.starts_with(text) && error.ends_with("net.ipv4.conf.eth0.accept_local = 1");
        assert!(is_named, "{error}");
        set("ipv4/conf/all/accept_local", "1");
        set("ipv4/conf/eth0/rp_filter", "1");
        V4.change("add", "path-director", "lo");
        let error = refusal().await;
        assert!(error.ends_with("net.ipv4.conf.eth0.rp_filter = 2"), "{error}");
        assert_eq!(saved(), [""; 0], "nothing has been changed");
        set("ipv4/conf/eth0/rp_filter", "2");
        let director = Director::start(config()).await.expect("answers are accepted");
        follow_the_address(&director, V4, "as active").await;
        // What is refused at the start is really necessary.
        set("ipv4/conf/eth0/rp_filter", "1");
        until_server_is(&director, "down", "the answers are dropped").await;
        set("ipv4/conf/eth0/rp_filter", "0");
        until_server_is(&director, "eligible", "they are not").await;
        set("ipv4/conf/all/accept_local", "0");
        until_server_is(&director, "down", "the answers are dropped").await;
        // A standby needs no setting.
        V4.change("del", "path-director", "lo");
        follow_the_address(&director, V4, "as standby").await;
        director.stop(Duration::ZERO).await;
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn the_marks_of_an_earlier_process_are_adopted_or_removed_and_others_repaired() {
    if !guest::enter() {
        return;
    }
    let _wire = build_world();
    V4.change("add", "path-web", "lo");
    direct(async {
        set("ipv4/conf/all/accept_local", "1");
        let marked = |line: &&String| line.contains(" -f ");
        let marks = || saved().iter().filter(marked).cloned().collect::<Vec<_>>();
        let lines = |mark: u32| {
            [format!("-A -f {mark} -s rr -o"), format!("-a -f {mark} -r 10.8.0.11:0 -g -w 1")]
        };
        // The one that the server needs, one of another server, one of a mark that is somebody else's.
        let adopted = lines(FIRST_MARK + 5);
        adopted.iter().for_each(|line| drop(ipvsadm(line)));
        ipvsadm(&format!("-A -f {FIRST_MARK} -s rr -o"));
        ipvsadm(&format!("-a -f {FIRST_MARK} -r 10.8.0.99:0 -g"));
        ipvsadm("-A -f 7 -s wlc");
        let expected = [&["-A -f 7 -s wlc".to_owned()][..], &adopted].concat();
        let is_expected = |mut expected: Vec<String>| {
            expected.sort();
            marks() == expected
        };
        let config = V4.config("method = \"dr\"");
        let director = Director::start(config.clone()).await.expect("IPVS is there");
        until("the marks of others are gone", || is_expected(expected.clone())).await;
        until_server_is(&director, "eligible", "the server is up").await;
        ipvsadm(&format!("-D -f {}", FIRST_MARK + 5));
        until("it is repaired", || is_expected(expected.clone())).await;

        // Another range, by a reload; then the service without such a check.
        let text = "[ipvs]\ncheck_marks = 100\n";
        let elsewhere = DirectorConfig::parse(&(V4.text("method = \"dr\"") + text));
        director.reload(elsewhere.expect("valid")).await.expect("possible");
        let expected = [&["-A -f 7 -s wlc".to_owned()][..], &lines(100)].concat();
        until("the marks are of the new range", || is_expected(expected.clone())).await;
        let without = V4.text("method = \"dr\"").replace(", virtual_address = true", "");
        let without = DirectorConfig::parse(&(without + text)).expect("valid");
        director.reload(without).await.expect("possible");
        let expected = vec!["-A -f 7 -s wlc".to_owned()];
        until("no mark is left", || is_expected(expected.clone())).await;
        director.reload(config).await.expect("possible");
        until("the server has a mark", || marks().len() == 3).await;
        director.stop(Duration::ZERO).await;
        assert_eq!(saved(), expected);
    });
}
