//! Whether a canary goes on, waits, or goes back. Pure.

use std::time::Duration;

use davit_api::{CanaryFigures, CanarySpec, LatencyBound};
use davit_registry::RunningCanary;

/// A step that has seen too few calls for so many times its interval, and for at least [`PATIENCE`], is given up: a
/// canary that nobody calls would run for ever.
const INTERVALS: u32 = 20;
/// The least time for which a step waits for its calls.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// What is known of the step that is in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step<'a> {
    pub(crate) spec: &'a CanarySpec,
    pub(crate) new: CanaryFigures,
    pub(crate) old: CanaryFigures,
    pub(crate) age: Duration,
}

impl<'a> Step<'a> {
    pub(crate) fn of(canary: &'a RunningCanary) -> Self {
        let spec = &canary.spec;
        Self { spec, new: canary.new.figures(spec), old: canary.old.figures(spec), age: canary.step_age }
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing yet.
    Wait,
    /// On to the next step, for this reason.
    Advance(String),
    /// Everything back to the old version, for this reason.
    RollBack(String),
}

/// Judges a step. Too many errors or calls that run too long end it at once, as soon as enough calls were seen; doing well
/// is believed only when the interval is over. Calls that davit itself failed are in neither figure.
pub(crate) fn judge(step: &Step<'_>) -> Verdict {
    let Step { spec, new, old, age } = *step;
    let enough = |figures: CanaryFigures| figures.calls >= u64::from(spec.min_calls);
    let mut told = Vec::new();
    let mut undecided = !enough(new);
    if enough(new) {
        let percent = errors(new);
        let text = format!(
            "{} of {} calls failed ({percent:.2}%), at most {}% may; of the old version's calls {:.2}%",
            new.errors,
            new.calls,
            spec.max_error_percent,
            errors(old)
        );
        if percent > spec.max_error_percent {
            return Verdict::RollBack(text);
        }
        told.push(text);
    }
    if let (Some(limit), true) = (spec.max_latency, enough(new)) {
        let what = format!("the {} percentile", ordinal(limit.percentile));
        let most = match limit.bound {
            LatencyBound::Ms(ms) => Some((ms, String::new())),
            // The old version is measured in the same step, by as many calls.
            LatencyBound::Times(times) => old
                .latency_ms
                .filter(|_| enough(old))
                .map(|ms| (ms * times, format!(", {times} times the old version's {ms:.1} ms"))),
        };
        match (new.latency_ms, most) {
            (Some(ms), Some((most, why))) => {
                let text = format!("{what} is {ms:.1} ms, at most {most:.1} ms may be{why}");
                if ms > most {
                    return Verdict::RollBack(text);
                }
                told.push(text);
            }
            // No call of the new version ran, or too few of the old one to compare with.
            _ => undecided = true,
        }
    }
    if !undecided && age >= Duration::from_secs(spec.interval_seconds.into()) {
        return Verdict::Advance(told.join("; "));
    }
    if undecided && age >= PATIENCE.max(Duration::from_secs(spec.interval_seconds.into()) * INTERVALS) {
        return Verdict::RollBack(format!(
            "too few calls to judge by: {} of the new version and {} of the old one in {} h, {} are needed",
            new.calls,
            old.calls,
            age.as_secs() / 3_600,
            spec.min_calls
        ));
    }
    Verdict::Wait
}

/// Failed calls of a hundred.
fn errors(figures: CanaryFigures) -> f64 {
    if figures.calls == 0 { 0.0 } else { figures.errors as f64 * 100.0 / figures.calls as f64 }
}

fn ordinal(percentile: f64) -> String {
    let last_two = percentile % 100.0;
    let ending = match percentile % 10.0 {
        _ if (11.0..14.0).contains(&last_two) => "th",
        1.0 => "st",
        2.0 => "nd",
        3.0 => "rd",
        _ => "th",
    };
    format!("{percentile}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_api::LatencyLimit;
    use proptest::prelude::*;

    fn spec() -> CanarySpec {
        CanarySpec {
            interval_seconds: 60,
            max_error_percent: 1.0,
            max_latency: Some("p95:1.2x".parse::<LatencyLimit>().unwrap()),
            min_calls: 50,
            ..CanarySpec::new(vec![5, 50])
        }
    }

    fn seen(calls: u64, errors: u64, latency_ms: f64) -> CanaryFigures {
        CanaryFigures { calls, errors, platform_errors: 0, latency_ms: Some(latency_ms) }
    }

    fn verdict(new: CanaryFigures, old: CanaryFigures, seconds: u64) -> Verdict {
        judge(&Step { spec: &spec(), new, old, age: Duration::from_secs(seconds) })
    }

    #[test]
    fn a_good_version_goes_on_when_its_time_has_come() {
        let (new, old) = (seen(500, 4, 11.0), seen(5_000, 10, 10.0));
        assert_eq!(verdict(new, old, 59), Verdict::Wait);
        let Verdict::Advance(reason) = verdict(new, old, 60) else { panic!() };
        assert_eq!(
            reason,
            "4 of 500 calls failed (0.80%), at most 1% may; of the old version's calls 0.20%; the 95th percentile is 11.0 ms, at most 12.0 ms may be, 1.2 times the old version's 10.0 ms"
        );
    }

    #[test]
    fn a_bad_version_goes_back_at_once_with_its_figures() {
        let old = seen(5_000, 0, 10.0);
        let Verdict::RollBack(reason) = verdict(seen(50, 1, 1.0), old, 0) else { panic!() };
        assert!(reason.starts_with("1 of 50 calls failed (2.00%), at most 1% may"), "{reason}");
        let Verdict::RollBack(reason) = verdict(seen(50, 0, 12.1), old, 0) else { panic!() };
        assert!(reason.starts_with("the 95th percentile is 12.1 ms, at most 12.0 ms may be"), "{reason}");
    }

    #[test]
    fn nothing_is_said_about_what_was_hardly_called() {
        let old = seen(5_000, 0, 10.0);
        assert_eq!(verdict(seen(49, 49, 900.0), old, 3_600), Verdict::Wait);
        assert_eq!(
            verdict(seen(500, 0, 900.0), seen(49, 0, 1.0), 3_600),
            Verdict::Wait,
            "nothing to compare with"
        );
        let day = 24 * 3_600;
        assert!(
            matches!(verdict(seen(49, 0, 1.0), old, day), Verdict::RollBack(r) if r.starts_with("too few calls"))
        );
    }

    #[test]
    fn a_fixed_bound_needs_no_old_version() {
        let spec = CanarySpec { max_latency: Some("p50:5ms".parse().unwrap()), ..spec() };
        let step = |ms| Step {
            spec: &spec,
            new: seen(50, 0, ms),
            old: seen(0, 0, 0.0),
            age: Duration::from_secs(60),
        };
        assert!(matches!(judge(&step(5.0)), Verdict::Advance(_)));
        assert!(matches!(judge(&step(5.1)), Verdict::RollBack(_)));
    }

    fn figures() -> impl Strategy<Value = CanaryFigures> {
        (0_u64..2_000, 0.0_f64..1.0, 0_u64..100, proptest::option::of(0.1_f64..1_000.0)).prop_map(
            |(calls, share, platform_errors, latency_ms)| CanaryFigures {
                calls,
                errors: (calls as f64 * share * share * share) as u64,
                platform_errors,
                latency_ms,
            },
        )
    }

    proptest! {
        #[test]
        fn nobody_is_judged_by_fewer_calls_than_were_asked_for(new in figures(), calls in 0_u64..50, old in figures(), seconds in 0_u64..80_000) {
            let new = CanaryFigures { calls, errors: new.errors.min(calls), ..new };
            prop_assert_eq!(verdict(new, old, seconds), Verdict::Wait);
        }

        #[test]
        fn no_step_ends_well_before_its_time_or_with_too_many_errors(new in figures(), old in figures(), seconds in 0_u64..200) {
            if let Verdict::Advance(_) = verdict(new, old, seconds) {
                prop_assert!(seconds >= 60 && errors(new) <= 1.0);
                prop_assert!(new.latency_ms.unwrap() <= old.latency_ms.unwrap() * 1.2);
            }
        }

        #[test]
        fn what_davit_itself_failed_changes_nothing(new in figures(), old in figures(), seconds in 0_u64..200, more in 0_u64..1_000_000) {
            let worse = CanaryFigures { platform_errors: new.platform_errors + more, ..new };
            prop_assert_eq!(verdict(new, old, seconds), verdict(worse, old, seconds));
        }

        #[test]
        fn more_errors_never_make_it_better(new in figures(), old in figures(), seconds in 0_u64..200) {
            prop_assume!(new.errors < new.calls);
            let worse = CanaryFigures { errors: new.errors + 1, ..new };
            if let Verdict::RollBack(_) = verdict(new, old, seconds) {
                prop_assert!(matches!(verdict(worse, old, seconds), Verdict::RollBack(_)));
            }
        }
    }
}
