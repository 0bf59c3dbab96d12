//! On arrival, never on a tick: does a call wait for a busy instance, or is another one started? The fleet asks
//! whenever its line grows, and once more when a call has waited as long as a start would have taken.

use std::time::Duration;

use crate::estimate::Estimate;

/// A fleet as of one moment, the new call already in its line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crowd {
    /// Calls that wait.
    pub line: usize,
    /// How long capacity has been lacking, on balance.
    pub lined_for: Duration,
    /// Calls in instances now.
    pub running: usize,
    /// Calls at a time in one instance.
    pub concurrency: usize,
    /// Instances that are there.
    pub instances: usize,
    /// Starts under way.
    pub starting: usize,
    /// Most instances, starts included.
    pub most: usize,
    /// How long calls take.
    pub service: Estimate,
    /// What a start takes now: a few tens of milliseconds when the pool has one ready, else the image's start.
    pub cold: Duration,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Instances to start now.
    pub start: usize,
    /// When to ask again if the line has not emptied: an estimate can be wrong, a call can hang.
    pub again: Option<Duration>,
}

/// Starts as many as the calls in line can use, less what the running instances will have absorbed within the
/// time that a line is worth waiting in: a share of what a start takes.
///
/// A line that outlives that time is no coincidence but a lack of capacity; then nothing is deducted.
pub fn decide(crowd: &Crowd) -> Answer {
    let concurrency = crowd.concurrency.max(1);
    let coming = crowd.starting.saturating_mul(concurrency);
    let unserved = crowd.line.saturating_sub(coming);
    let patience = crowd.cold.mul_f64(PATIENCE).max(SHORTEST);
    let again = (crowd.line > 0).then_some(patience);
    let absorbed = if crowd.lined_for >= patience { 0 } else { absorbed(crowd, patience) };
    let wanted = unserved.saturating_sub(absorbed).div_ceil(concurrency);
    // Whatever is estimated: with nobody there, somebody has to come.
    let nobody = crowd.line > 0 && crowd.instances + crowd.starting == 0;
    let room = crowd.most.saturating_sub(crowd.instances + crowd.starting);
    Answer { start: wanted.max(usize::from(nobody)).min(room), again }
}

/// Share of a start's time that a call waits for a busy instance instead. Less than one, because the instance
/// also serves the calls after this one.
const PATIENCE: f64 = 0.5;
/// Not asked again sooner.
const SHORTEST: Duration = Duration::from_millis(5);

/// Calls that the running ones will make room for within `patience`. Judged by the upper estimate:
/// waiting for a call that turns out long costs more than an instance too many.
fn absorbed(crowd: &Crowd, patience: Duration) -> usize {
    let Some(service) = crowd.service.upper() else { return 0 };
    let turns = patience.as_secs_f64() / service.as_secs_f64().max(1e-6);
    (turns * crowd.running as f64).min(1e9) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn crowd(service_ms: u64) -> Crowd {
        let mut service = Estimate::default();
        (0..40).for_each(|_| service.note(Duration::from_millis(service_ms)));
        Crowd {
            line: 1,
            lined_for: Duration::ZERO,
            running: 1,
            concurrency: 1,
            instances: 1,
            starting: 0,
            most: 10,
            service,
            cold: Duration::from_millis(50),
        }
    }

    #[test]
    fn short_calls_wait_and_long_ones_start_another() {
        assert_eq!(
            decide(&crowd(5)).start,
            0,
            "the running call ends five times over before a start is half through"
        );
        assert_eq!(decide(&crowd(500)).start, 1);
    }

    #[test]
    fn a_dear_start_is_waited_for_longer() {
        let dear = Crowd { cold: Duration::from_secs(3), ..crowd(500) };
        assert_eq!(decide(&dear).start, 0);
    }

    #[test]
    fn an_unknown_function_does_not_wait_behind_its_first_call() {
        assert_eq!(decide(&Crowd { service: Estimate::default(), ..crowd(5) }).start, 1);
    }

    #[test]
    fn a_step_is_answered_at_once_and_in_full() {
        assert_eq!(decide(&Crowd { line: 19, most: 100, ..crowd(500) }).start, 19);
    }

    #[test]
    fn a_line_that_outlives_a_start_is_a_lack_of_capacity() {
        let hung = Crowd { lined_for: Duration::from_millis(60), ..crowd(5) };
        assert_eq!(decide(&hung).start, 1);
    }

    #[test]
    fn starts_under_way_are_counted() {
        assert_eq!(decide(&Crowd { line: 4, starting: 4, ..crowd(500) }).start, 0);
        assert_eq!(decide(&Crowd { line: 4, starting: 1, concurrency: 2, ..crowd(500) }).start, 1);
    }

    proptest! {
        #[test]
        fn the_maximum_holds_and_nobody_waits_for_nothing(
            line in 0usize..1000, running in 0usize..100, concurrency in 0usize..100, instances in 0usize..100,
            starting in 0usize..100, most in 1usize..100, cold in 0u64..10_000, lined in 0u64..10_000,
        ) {
            let crowd = Crowd {
                line, lined_for: Duration::from_millis(lined), running, concurrency, instances, starting, most,
                cold: Duration::from_millis(cold), ..crowd(100)
            };
            let answer = decide(&crowd);
            prop_assert!(instances + starting + answer.start <= most.max(instances + starting));
            prop_assert!(answer.start <= line);
            if line > 0 {
                prop_assert!(instances + starting + answer.start > 0);
                prop_assert!(answer.again.is_some_and(|again| again >= SHORTEST));
            }
        }
    }
}
