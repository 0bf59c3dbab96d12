//! How long calls ran, in buckets that gateways fill and the controller reads: each is five per cent wider than the one
//! before, so that a quantile read from them is off by less than that, from a tenth of a millisecond to a quarter of an
//! hour.

/// Upper end of the first bucket, in milliseconds.
const FIRST_MS: f64 = 0.1;
/// Each bucket's end is so many times the one before.
const GROWTH: f64 = 1.05;
/// How many there are: `FIRST_MS · GROWTH^(BUCKETS - 1)` is more than 900 s, the longest budget of a call.
pub const BUCKETS: usize = 330;

/// The bucket of a duration. Longer ones than the last bucket's are in the last.
pub fn bucket(ms: f64) -> usize {
    if ms.is_nan() || ms <= FIRST_MS {
        return 0;
    }
    let at = (ms / FIRST_MS).ln() / GROWTH.ln();
    (at.ceil() as usize).min(BUCKETS - 1)
}

/// Upper end of a bucket, in milliseconds.
fn end(bucket: usize) -> f64 {
    FIRST_MS * GROWTH.powi(i32::try_from(bucket).unwrap_or(i32::MAX))
}

/// The duration that this part (0 to 1) of the calls did not exceed, in milliseconds; `None` when there were none.
pub fn quantile(counts: &[u64], part: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let wanted = (part.clamp(0.0, 1.0) * total as f64).max(1.0);
    let mut before = 0;
    for (at, &count) in counts.iter().enumerate() {
        if count > 0 && (before + count) as f64 >= wanted {
            let start = if at == 0 { 0.0 } else { end(at - 1) };
            // Within a bucket as if its calls were spread evenly.
            let share = ((wanted - before as f64) / count as f64).clamp(0.0, 1.0);
            return Some(start + (end(at) - start) * share);
        }
        before += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_call_has_a_bucket_of_its_own() {
        assert!(end(BUCKETS - 1) > 900_000.0);
        assert_eq!((bucket(0.0), bucket(-1.0), bucket(f64::NAN), bucket(1e12)), (0, 0, 0, BUCKETS - 1));
        assert_eq!(quantile(&[0; BUCKETS], 0.5), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_off_by_less_than_a_bucket(
            mut all in proptest::collection::vec(0.2_f64..100_000.0, 1..200),
            part in 0.01_f64..1.0,
        ) {
            let mut counts = vec![0_u64; BUCKETS];
            all.iter().for_each(|ms| counts[bucket(*ms)] += 1);
            all.sort_by(f64::total_cmp);
            let at = ((part * all.len() as f64).ceil() as usize).clamp(1, all.len()) - 1;
            let (exact, read) = (all[at], quantile(&counts, part).unwrap());
            prop_assert!(read <= exact * GROWTH * 1.001 && read >= exact / GROWTH * 0.999, "{exact} {read}");
        }
    }
}
