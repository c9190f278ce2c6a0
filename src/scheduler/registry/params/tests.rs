use super::*;
use crate::scheduler::{RoundRobin, SchedulerRegistry};

/// Builds an expression with a factory of the name `all` that takes every kind of parameter.
fn built(text: &str) -> Result<(), String> {
    let mut registry = SchedulerRegistry::default();
    registry
        .register("all", |params| {
            params.take_flag("fast")?;
            let n = params.take_value_in("n", 1..=9_u8)?;
            params.take_value_in("x", 1.0..)?;
            params.take_value::<std::net::IpAddr>("ip", "an address")?;
            params.take_duration("t", Duration::from_millis(1)..=Duration::from_secs(60))?;
            params.take_scheduler()?;
            match n {
                Some(9) => Err(params.invalid_parameters("nine is too many for me")),
                _ => Ok(RoundRobin::new()),
            }
        })
        .expect("a free name");
    registry.parse(text).map(drop).map_err(|error| error.to_string())
}

#[test]
fn all_kinds_of_parameters_are_taken_in_any_order() {
    assert_eq!(built("all(rr)"), Ok(()));
    assert_eq!(built("all(t=1s, rr, ip=::1, n=8, x=1.5, fast)"), Ok(()));
    assert_eq!(built("all(fast, all(fast, priority(rr)))"), Ok(()));
}

#[test]
fn an_invalid_value_is_named_with_the_accepted_values() {
    let bad = |text: &str| built(text).expect_err(text);
    assert_eq!(bad("all(rr, n=10)"), "all: n=10 is not a number from 1 to 9");
    assert_eq!(bad("all(rr, n=-1)"), "all: n=-1 is not a number from 1 to 9");
    assert_eq!(bad("all(rr, n=300)"), "all: n=300 is not a number from 1 to 9");
    assert_eq!(bad("all(rr, x=NaN)"), "all: x=NaN is not a number of at least 1");
    assert_eq!(bad("all(rr, ip=x)"), "all: ip=x is not an address");
    assert_eq!(bad("all(rr, t=61s)"), "all: t=61s is not a duration from 1ms to 60s");
    assert_eq!(bad("all(rr, n=9)"), "all: nine is too many for me");
}

#[test]
fn unknown_missing_and_duplicate_parameters_are_named() {
    let bad = |text: &str| built(text).expect_err(text);
    assert_eq!(
        bad("all(rr, m=1)"),
        "all: unknown parameter m, it takes one scheduler and the parameters fast, n, x, ip, t"
    );
    assert_eq!(
        bad("all(rr, priority(rr))"),
        "all: unknown parameter priority(rr), it takes one scheduler and the parameters fast, n, x, ip, t"
    );
    assert_eq!(
        bad("all(fast)"),
        "scheduler all wraps another scheduler: write all(wlc), for example"
    );
    assert_eq!(bad("all"), "scheduler all wraps another scheduler: write all(wlc), for example");
    assert_eq!(bad("all(rr, n=1, n=1)"), "all: parameter n is given twice");
    assert_eq!(bad("all(fast, rr, fast)"), "all: parameter fast is given twice");
    assert_eq!(bad("rr(n=1)"), "rr: unknown parameter n, it has no parameters");
}

#[test]
fn a_known_parameter_in_the_wrong_form_is_refused() {
    let bad = |text: &str| built(text).expect_err(text);
    assert_eq!(bad("all(n, rr)"), "all: parameter n needs a value, a number from 1 to 9");
    assert_eq!(
        bad("all(rr, fast=yes)"),
        "all: fast is a flag and takes no value, but is given yes"
    );
}

#[test]
fn an_error_inside_a_nested_scheduler_names_the_nested_scheduler() {
    assert_eq!(
        built("all(priority(rr, panic=101))"),
        Err("priority: panic=101 is not a whole number from 0 to 100".to_owned())
    );
}

#[test]
fn durations_are_whole_numbers_with_a_unit() {
    assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(parse_duration("100us"), Some(Duration::from_micros(100)));
    assert_eq!(parse_duration("5 m"), Some(Duration::from_secs(300)));
    assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
    for bad in
        ["", "5", "s", "-5s", "1.5s", "5days", "99999999999999999999s", "18446744073709551615h"]
    {
        assert_eq!(parse_duration(bad), None, "{bad}");
    }
}

#[test]
fn ranges_are_described() {
    assert_eq!(describe_range(&(..5), i32::to_string), " below 5");
    assert_eq!(describe_range(&(..=5), i32::to_string), " of at most 5");
    assert_eq!(describe_range(&(1..5), i32::to_string), " of at least 1 and below 5");
    assert_eq!(describe_range(&(..), i32::to_string), "");
}
