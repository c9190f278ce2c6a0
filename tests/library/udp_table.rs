//! The UDP flow table agrees with a plain list under any sequence of operations.

use proptest::prelude::*;

#[path = "../common/flow_model.rs"]
mod flow_model;
#[allow(dead_code, reason = "the model does not use all of the table")]
#[path = "../../src/forward/udp/flow_table.rs"]
mod flow_table;

use self::flow_model::{Shape, Step, compare};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12u8).prop_map(|key| Step::Request { key }),
        4 => (0..12u8).prop_map(|key| Step::Reply { key }),
        1 => (0..12u8).prop_map(|key| Step::Remove { key }),
        4 => any::<u8>().prop_map(|millis| Step::Wait { millis }),
        1 => (0..9u8).prop_map(|millis| Step::Back { millis }),
        2 => Just(Step::Expire),
        1 => Just(Step::GiveUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flow_table_agrees_with_a_list(
        capacity in 0..8u8,
        idle in any::<u8>(),
        total in prop_oneof![Just(0), any::<u8>()],
        steps in prop::collection::vec(step(), 0..200),
    ) {
        compare(Shape { capacity, idle, total }, &steps);
    }
}
