//! Simulator (temporary main).
#![expect(clippy::print_stdout, reason = "x")]
mod engine;
mod policy;
mod trace;
use std::time::Duration;
use davit_scaling::keep_alive::Price;
fn main() {
    let text = std::fs::read_to_string("scaling/traces/azure2019-like.trace").unwrap();
    let functions = trace::read(&text).unwrap();
    let cold = engine::Cold::Uniform(Duration::from_millis(500));
    for m in [1u64, 5, 10, 20, 60] {
        let t = std::time::Instant::now();
        println!("fixed {m} {:?} {:?}", engine::run(&functions, policy::Policy::Fixed(Duration::from_secs(60 * m)), cold), t.elapsed());
    }
    for h in [1u64, 2, 4] {
        println!("hybrid {h} {:?}", engine::run(&functions, policy::Policy::Hybrid(Duration::from_secs(3600 * h)), cold));
    }
    for schedules in [true, false] {
        for p in [0.1, 0.3, 1.0, 3.0, 10.0] {
        let t = std::time::Instant::now();
            let pol = policy::Policy::Davit { price: Price(p), schedules, budget_mb: None };
            println!("davit {schedules} {p} {:?} {:?}", engine::run(&functions, pol, cold), t.elapsed());
        }
    }
}
