//! Shares match weights, and a value moves only when it must.

use proptest::prelude::*;

use super::*;
use crate::routes::table::tests::version;

/// Versions 1, 2, … with these weights.
fn split(weights: &[u32], sticky: Option<&str>) -> Split {
    let shares = weights.iter().enumerate().map(|(n, weight)| {
        let mut version = (*version("ns", "fn", &[])).clone();
        version.function_id = FunctionId(uuid::Uuid::nil());
        version.number = n as u32 + 1;
        (Arc::new(version), *weight)
    });
    Split::new(shares.collect(), sticky.map(|s| s.parse().unwrap())).unwrap()
}

fn share(split: &Split, number: u32, keys: u32) -> f64 {
    let hits = (0..keys).filter(|n| {
        let key = n.to_le_bytes();
        split.at(point(FunctionId(uuid::Uuid::nil()), &key)).number == number
    });
    hits.count() as f64 / f64::from(keys)
}

/// Weights that are a hundred together; some may be nothing.
fn weights() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0_u32..100, 1..9).prop_map(|mut cuts| {
        cuts.push(100);
        cuts.sort_unstable();
        let mut before = 0;
        cuts.into_iter().map(|cut| cut - std::mem::replace(&mut before, cut)).collect()
    })
}

/// How far the ends of versions moved, as a part of the line.
fn moved_ends(before: &[u32], after: &[u32]) -> f64 {
    let sums = |weights: &[u32]| {
        let mut sum = 0;
        (0..before.len().max(after.len()))
            .map(|n| {
                sum += weights.get(n).copied().unwrap_or(0);
                sum
            })
            .collect::<Vec<_>>()
    };
    sums(before).iter().zip(sums(after)).map(|(a, b)| f64::from(a.abs_diff(b))).sum::<f64>() / 100.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_version_gets_its_part_of_the_line_exactly(weights in weights()) {
        let split = split(&weights, None);
        let mut start = 0;
        for (n, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            let end = start + weight;
            let first = (u64::from(start) * POINTS).div_ceil(100).min(POINTS - 1);
            let last = (u64::from(end) * POINTS / 100) - 1;
            for point in [first, last] {
                prop_assert_eq!(split.at(u32::try_from(point).unwrap()).number, n as u32 + 1);
            }
            start = end;
        }
    }

    #[test]
    fn values_spread_by_the_weights(weights in weights()) {
        let split = split(&weights, Some("header:x-user"));
        for (n, weight) in weights.iter().enumerate() {
            let share = share(&split, n as u32 + 1, 4_000);
            // Four thousand throws: five standard deviations are at most four hundredths.
            prop_assert!((share - f64::from(*weight) / 100.0).abs() < 0.04, "{} {} {:?}", n + 1, share, weights);
        }
    }

    #[test]
    fn a_value_moves_only_as_far_as_the_ends_do(before in weights(), after in weights()) {
        let (one, two) = (split(&before, None), split(&after, None));
        let keys = 4_000_u32;
        let moved = (0..keys).filter(|n| {
            let point = point(FunctionId(uuid::Uuid::nil()), &n.to_le_bytes());
            one.at(point).number != two.at(point).number
        });
        let moved = moved.count() as f64 / f64::from(keys);
        prop_assert!(moved <= moved_ends(&before, &after) + 0.05, "{moved} {before:?} {after:?}");
    }

    #[test]
    fn what_a_canary_has_it_keeps(small in 1_u32..99, more in 1_u32..98) {
        let large = small + more.min(99 - small);
        let (one, two) = (split(&[100 - small, small], None), split(&[100 - large, large], None));
        for n in 0..2_000_u32 {
            let point = point(FunctionId(uuid::Uuid::nil()), &n.to_le_bytes());
            prop_assert!(one.at(point).number <= two.at(point).number);
        }
    }

    #[test]
    fn any_value_goes_where_it_went(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        let split = split(&[30, 30, 40], Some("cookie:session"));
        let pick = || split.pick(|_| Some(&value)).number;
        prop_assert_eq!(pick(), pick());
    }
}

#[test]
fn chance_decides_where_no_value_does() {
    let split = split(&[50, 50], Some("header:x-user"));
    let firsts = (0..2_000).filter(|_| split.pick(|_| None).number == 1).count();
    assert!((800..1_200).contains(&firsts), "{firsts}");
}
