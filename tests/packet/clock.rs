//! A step of the wall clock, in a kernel whose clock is the test's own.

use lvs::engine::EngineProtocol;
use lvs::scheduler::RoundRobin;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::carried::{ask_name, begin, connect, settings, start_engine};
use crate::flows::{active, serve_both, until, virtual_address};
use crate::world::World;

const YEAR: i64 = 365 * 24 * 3600;

/// Steps the clock forward and back. Flows stay, and the scheduler decides new ones.
pub(crate) fn step_clock(world: &World) {
    serve_both(world);
    let engine = start_engine(world, settings(world));
    let (set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let mut streams = vec![connect(world, virtual_address())];
    let mut names: String = streams.iter_mut().map(ask_name).collect();
    for years in [1, -2, 1] {
        let time = clock_gettime(ClockId::Realtime);
        clock_settime(ClockId::Realtime, Timespec { tv_sec: time.tv_sec + years * YEAR, ..time })
            .expect("the kernel is the test's own");
        let mut stream = connect(world, virtual_address());
        names.push(ask_name(&mut stream));
        streams.push(stream);
        // By then the engine has looked at its flows, too.
        let count = streams.len() as u64;
        until("the scheduler has decided", || engine.statistics().upcalls == count);
        assert_eq!(streams.iter_mut().map(ask_name).collect::<String>(), names);
        assert_eq!((u64::from(active(&set)), engine.statistics().table_decisions), (count, 0));
    }
    assert!(names == "abab" || names == "baba", "by turns, not {names}");
}
