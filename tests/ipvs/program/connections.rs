//! `lvs ctl list`, of a service that the kernel forwards.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};

use crate::guest;
use crate::inside::{run, wait_for};

/// `lvs run`; dropped, it is killed.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rows(list: &str) -> Vec<Vec<&str>> {
    list.lines().map(|row| row.split_whitespace().collect()).collect()
}

/// Tells whether a column is a time of minutes and seconds below a limit, and not over.
fn is_time_below(column: &str, minutes: u32) -> bool {
    column != "00:00"
        && column
            .split_once(':')
            .is_some_and(|(all, _)| all.parse().is_ok_and(|it: u32| it < minutes))
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn connections_and_persistent_clients_of_the_kernel_are_listed() {
    if !guest::enter() {
        return;
    }
    run("ip", "address add 10.0.0.1/32 dev lo");
    run("ip", "address add fd00::1/128 dev lo nodad");
    let servers = ["127.0.0.1:0", "[::1]:0"].map(|it| TcpListener::bind(it).expect("a free port"));
    let [server4, server6] = servers.each_ref().map(|it| it.local_addr().expect("bound"));
    let config = format!(
        "[admin]\nlisten = \"127.0.0.1:9000\"\n\
         [[service]]\nname = \"four\"\nlisten = \"10.0.0.1:80\"\nengine = \"ipvs\"\n\
         scheduler = \"rr\"\npersistence = {{ timeout = \"5m\", netmask = 24 }}\n\
         [[service.server]]\naddress = \"{server4}\"\n\
         [[service]]\nname = \"six\"\nlisten = \"[fd00::1]:80\"\nengine = \"ipvs\"\n\
         scheduler = \"rr\"\n[[service.server]]\naddress = \"{server6}\"\n\
         [[service]]\nname = \"proxied\"\nlisten = \"127.0.0.1:81\"\n\
         [[service.server]]\naddress = \"{server4}\"\n"
    );
    std::fs::write("/run/connections.toml", config).expect("a writable folder");
    let program = Command::new("lvs").args(["run", "--config", "/run/connections.toml"]).spawn();
    let _program = Program(program.expect("the program starts"));
    let [four, six, proxied] = ["10.0.0.1:80", "[fd00::1]:80", "127.0.0.1:81"].map(|address| {
        let mut stream = wait_for(|| TcpStream::connect(address).ok());
        stream.write_all(b"text").expect("the connection is open");
        (stream.local_addr().expect("connected").to_string(), stream)
    });
    // The proxy accepts before it connects.
    let list = wait_for(|| {
        let list = run("lvs", "ctl list -c");
        list.lines().any(|row| row.starts_with("proxied ")).then_some(list)
    });
    let list = rows(&list);
    let head = ["service", "client", "local", "server", "age", "state", "expire", "origin"];
    assert_eq!(list[0], head);
    let find = |service: &str, client: &str| {
        let is_it = |row: &&Vec<&str>| row[..2] == [service, client];
        let found: Vec<_> = list.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{service} {client}: {list:?}");
        found[0].clone()
    };
    for (service, client, local, server) in [
        ("four", &four.0, "10.0.0.1:80", server4.to_string()),
        ("six", &six.0, "[fd00::1]:80", server6.to_string()),
    ] {
        let row = find(service, client);
        assert_eq!(row[2..6], [local, &server, "-", "ESTABLISHED"]);
        assert!(is_time_below(row[6], 16), "{row:?}");
        assert_eq!(row[7..], ["local"]);
    }
    assert_eq!(find("proxied", &proxied.0).len(), 5);

    // The template is no connection.
    assert!(list.iter().all(|row| !row[1].ends_with(":0")), "{list:?}");
    let clients = run("lvs", "ctl list --clients four");
    let clients = rows(&clients);
    assert_eq!(clients[0], ["service", "client", "local", "server", "expire"]);
    assert_eq!(clients[1][..4], ["four", "10.0.0.0", "-", &server4.to_string()]);
    assert!(is_time_below(clients[1][4], 6), "{clients:?}");
    assert_eq!(clients.len(), 2);

    // Of the proxy alone the list is as without engines.
    let list = run("lvs", "ctl list -c proxied");
    assert_eq!(rows(&list)[0], head[..5]);
    let json = run("lvs", "ctl list -c proxied --json");
    assert!(!json.contains("origin") && json.contains("\"age_ms\": "), "{json}");
}
