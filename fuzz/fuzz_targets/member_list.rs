//! No text makes the parser of member lists panic; a fault lies within the text, and what is
//! accepted is accepted by a set, too.
//!
//! ```text
//! cargo +nightly fuzz run member_list
//! ```
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use lvs::BackendSet;
use lvs::discovery::StaticList;

fuzz_target!(|text: &str| {
    let list = match text.parse::<StaticList<SocketAddr>>() {
        Ok(list) => list,
        Err(error) => {
            let line = text.lines().nth(error.line - 1).expect("the line is there");
            assert!(error.column <= line.chars().count() + 1);
            assert!(error.to_string().len() < 1024, "a message is short");
            return;
        }
    };
    // Each name once, and no weight or limit that a set refuses.
    let set = BackendSet::new();
    set.edit(|edit| list.members().iter().try_for_each(|spec| edit.insert(spec.clone()).map(drop)))
        .expect("what is a list is a set");
});
