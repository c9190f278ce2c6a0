//! How many packets the director is asked about at a time.

use super::model_state::{ModelDirector, TapDevice};
use super::{ComparedProgram, SYN, ends, tcp, with_services};
use crate::packet::statistics::PacketStatistics;

/// As many as have room in the queue to the director (`MAX_WAITING_UPCALLS`).
const MAX_WAITING: u64 = 384;

/// Runs the program, and not the model, on the first packet of a connection from a port.
fn begin(compared: &mut ComparedProgram, port: u16) {
    let (mut client, service, _) = ends(0);
    client.set_port(port);
    compared.program.test_run(&tcp(client, service, SYN));
}

fn asked_and_decided(compared: &ComparedProgram) -> (u64, u64) {
    let counted = PacketStatistics::read(&compared.maps).expect("the statistics");
    (counted.upcalls, counted.table_decisions)
}

#[test]
fn a_table_decides_what_has_no_room_in_the_queue_to_the_director() {
    let Some(mut compared) = with_services() else { return };
    let director =
        ModelDirector { is_alive: true, tap: TapDevice::Present, has_budget: true, answers: true };
    compared.set_director(director);
    for port in 0..MAX_WAITING as u16 + 20 {
        begin(&mut compared, 10_000 + port);
    }
    assert_eq!(asked_and_decided(&compared), (MAX_WAITING, 20));
    // Two come back, which are refused.
    compared.set_director(ModelDirector { tap: TapDevice::Test, ..director });
    begin(&mut compared, 9000);
    begin(&mut compared, 9001);
    compared.set_director(director);
    for port in 0..20 {
        begin(&mut compared, 20_000 + port);
    }
    assert_eq!(asked_and_decided(&compared), (MAX_WAITING + 2, 38));
    compared.maps.clear_waiting_upcalls().expect("the count");
    begin(&mut compared, 30_000);
    assert_eq!(asked_and_decided(&compared), (MAX_WAITING + 3, 38));
}
