//! No request body makes a director panic, or lose a server.
//!
//! ```text
//! cargo +nightly fuzz run admin_bodies
//! ```
#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::director::{Director, DirectorConfig, RealServer, ServerChange};
use tokio::runtime::{Builder, Runtime};

#[derive(Arbitrary, Debug)]
enum Call<'a> {
    Change { first: bool, body: &'a [u8] },
    Add { body: &'a [u8] },
    Weight { weight: u32 },
    Remove { server: &'a str },
}

const CONFIG: &str = "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nscheduler = \"wlc\"\n\
    [[service.server]]\naddress = \"127.0.0.1:9\"\n";
const FIRST: &str = "127.0.0.1:9";

thread_local! {
    static RUNTIME: RefCell<Option<(Runtime, Director)>> = const { RefCell::new(None) };
}

fuzz_target!(|calls: Vec<Call<'_>>| {
    RUNTIME.with_borrow_mut(|known| {
        let (runtime, director) = known.get_or_insert_with(|| {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let config = DirectorConfig::parse(CONFIG).expect("sound");
            let director = runtime.block_on(Director::start(config)).expect("it starts");
            (runtime, director)
        });
        let _in = runtime.enter();
        for call in calls {
            // Impossible changes are refused. The next input starts with the servers of this one.
            match call {
                Call::Change { first, body } => {
                    if let Ok(change) = serde_json::from_slice::<ServerChange>(body) {
                        let server = if first { FIRST } else { "127.0.0.1:10" };
                        let _ = director.change_server("a", server, change);
                    }
                }
                Call::Add { body } => {
                    if let Ok(server) = serde_json::from_slice::<RealServer>(body) {
                        let _ = director.add_server("a", server);
                    }
                }
                Call::Weight { weight } => {
                    let _ =
                        director.change_server("a", FIRST, ServerChange::new().with_weight(weight));
                }
                Call::Remove { server } if server != FIRST => {
                    let _ = director.remove_server("a", server);
                }
                Call::Remove { .. } => {}
            }
        }
        let status = director.status();
        assert!(status.services[0].servers.iter().any(|it| it.address == FIRST));
        if status.services[0].servers.len() > 64 {
            runtime.block_on(director.stop(Duration::ZERO));
            *known = None;
        }
    });
});
