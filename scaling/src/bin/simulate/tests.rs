//! What davit promises about cold starts and steps, asserted in the simulated clock, where it is exact.

use super::*;
use crate::trace::Function;

/// Every fourth function, without the busiest: a fraction of the calls, and most of the cold starts.
fn some_functions() -> Vec<Function> {
    let all = trace::read(include_str!("../../../traces/azure2019-like.trace")).unwrap();
    all.into_iter().filter(|f| f.calls.len() < 6_000).step_by(4).collect()
}

#[test]
fn at_the_memory_of_ten_fixed_minutes_there_are_far_fewer_cold_starts() {
    let functions = some_functions();
    for cold in [UNIFORM, MIXED] {
        let equal = compare::at_equal_memory(&functions, compare::fixed(10), cold, true);
        assert!(equal.control.cold_starts > 500, "too few to judge by: {:?}", equal.control);
        assert!(equal.davit.idle_gib_s <= equal.control.idle_gib_s);
        assert!(equal.ratio() <= 0.7, "{:.3}: {:?}, {:?}", equal.ratio(), equal.davit, equal.control);
    }
}

#[test]
fn the_same_trace_gives_the_same_figures() {
    let functions = some_functions();
    let run = || engine::run(&functions, compare::fixed(5), UNIFORM);
    assert_eq!(run(), run());
}

#[test]
fn a_step_fits_in_half_of_knatives_time_for_any_call_and_start() {
    for row in compare::steps() {
        assert!(row.worst <= 0.5, "call {:?}, start {:?}: {:.3}", row.service, row.cold, row.worst);
    }
}
