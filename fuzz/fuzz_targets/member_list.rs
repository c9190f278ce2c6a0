//! No text makes the parser of member lists panic; the position of an error is within the text, and
//! a set accepts every list that the parser accepts.
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
            let line = text.lines().nth(error.line - 1).expect("the line of the error exists");
            assert!(error.column <= line.chars().count() + 1);
            assert!(error.to_string().len() < 1024, "the error text is bounded");
            return;
        }
    };
    // The list has each name once, and no weight or limit that a set refuses.
    let set = BackendSet::new();
    set.edit(|edit| list.members().iter().try_for_each(|spec| edit.insert(spec.clone()).map(drop)))
        .expect("a set accepts a valid list");
});
