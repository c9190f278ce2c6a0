//! The program is compared with a model of it: the same verdict, the same octets, the same state.
//!
//! The kernel runs the program on frames of the test (`BPF_PROG_TEST_RUN`), as if the loopback device had
//! received them.

mod answer_tests;
mod answering;
mod compared;
mod direct_tests;
mod flow_tests;
mod fragment_tests;
mod frames;
mod generator;
mod header_tests;
mod icmp_tests;
mod model;
mod model_decisions;
mod model_places;
mod model_state;
mod parsed;
mod random_tests;
mod rewriting;
#[path = "../../../tests/common/skipped.rs"]
#[allow(clippy::duplicate_mod, reason = "the tests of the director have it, too")]
mod skipped;
mod table_tests;
mod tunnel_tests;
mod tunnelling;
mod unassured_tests;
mod upcall_tests;
mod xdp_network;
mod xdp_tests;

use std::net::SocketAddr;

pub(super) use self::compared::{ComparedProgram, PinFolder};
use self::frames::ACK;
pub(super) use self::frames::{SYN, tcp};
use crate::packet::layout::PROTOCOL_TCP;

const CLIENT: [&str; 2] = ["10.1.0.2:5000", "[fd01::2]:5000"];
const SERVICE: [&str; 2] = ["10.9.0.1:80", "[fd09::1]:80"];
const SERVER: [&str; 2] = ["10.2.0.2:8080", "[fd02::2]:8080"];
const OTHER_SERVER: [&str; 2] = ["10.3.0.2:8081", "[fd03::2]:8081"];

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Loads the program with a service of TCP with one server, for each family. `None` if it cannot run here.
fn with_services() -> Option<ComparedProgram> {
    let mut compared = ComparedProgram::load()?;
    for family in [0, 1] {
        compared.serve(SERVICE[family], PROTOCOL_TCP, &[SERVER[family]]);
    }
    Some(compared)
}

/// The ends of a connection: client, service and server.
fn ends(family: usize) -> (SocketAddr, SocketAddr, SocketAddr) {
    (address(CLIENT[family]), address(SERVICE[family]), address(SERVER[family]))
}

/// Establishes a connection by the table.
fn establish(compared: &mut ComparedProgram, family: usize) {
    let (client, service, server) = ends(family);
    compared.pass(&tcp(client, service, SYN));
    compared.pass(&tcp(server, client, SYN | ACK));
    compared.pass(&tcp(client, service, ACK));
}
