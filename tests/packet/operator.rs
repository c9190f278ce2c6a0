//! What an operator sees of a director whose services the engine serves: persistent clients, and the log.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use lvs::director::{BackendAdminState, ServerChange};

use crate::director::{Client, NamedServer, PATIENCE, ask, config_text, on_director, start};
use crate::flows;
use crate::world::{SERVERS, VIRTUAL, World, socket_address};

#[test]
fn persistent_clients_are_those_of_the_director() {
    let Some(world) = World::build() else { return };
    let _servers = [NamedServer::start(&world, 0), NamedServer::start(&world, 1)];
    on_director(&world, async || {
        let persistence = "\"rr\"\npersistence = { timeout = \"5m\", draining = \"end\" }";
        let text = config_text(&world, "\"packet\"", "").replace("\"rr\"", persistence);
        let director = start(&text).await;
        let names = ask(&world, 4);
        assert!(names == "aaaa" || names == "bbbb", "one client has one server: {names}");
        assert_eq!(director.status().services[0].persistent, 1);
        // By the rule of the director's table, the client leaves a server that drains.
        let home = if names == "aaaa" { 0 } else { 1 };
        let address = socket_address(SERVERS[0][home], 8080).to_string();
        let draining = ServerChange::new().with_state(BackendAdminState::Draining);
        director.change_server("web", &address, draining).expect("there is this server");
        let other = if home == 0 { "bb" } else { "aa" };
        assert_eq!(ask(&world, 2), other);
        director.stop(Duration::ZERO).await;
    });
}

/// The program on the director's machine; it is killed when this is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_log_has_a_line_for_each_connection() {
    let Some(program) = option_env!("CARGO_BIN_EXE_lvs") else {
        return eprintln!("skipped: the program is not built without the feature `cli`");
    };
    let Some(world) = World::build() else { return };
    let _servers = [NamedServer::start(&world, 0), NamedServer::start(&world, 1)];
    let text = config_text(&world, "\"packet\"", "") + "\n[log]\nconnections = true\n";
    let file = world.pin_folder().parent().expect("a folder").with_extension("toml");
    fs::write(&file, text).expect("it is written");
    let child = world.within("director", || {
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).spawn().expect("the program starts")
    });
    let mut child = Program(child);
    let log = BufReader::new(child.0.stderr.take().expect("the log"));
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
    });
    let line = |wanted: &str| loop {
        let line = lines.recv_timeout(PATIENCE).expect("the log goes on");
        if line.contains(wanted) {
            return line;
        }
    };
    flows::until("the service is there", || {
        let address = socket_address(VIRTUAL[0], 80);
        world.within("client", || TcpStream::connect_timeout(&address, PATIENCE).is_ok())
    });
    fs::remove_file(&file).expect("it is there");
    let mut client = Client::connect(&world);
    client.ask();
    let address = client.0.local_addr().expect("an address");
    drop(client);
    let line = line(&format!("client={address}"));
    let local = format!("local={}", socket_address(VIRTUAL[0], 80));
    for part in ["service=web end=closed protocol=tcp", &local, "backend=10.", "sent=", "received="]
    {
        assert!(line.contains(part), "{part} in {line}");
    }
}
