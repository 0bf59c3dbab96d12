//! Simulator (temporary main).
#![expect(clippy::print_stdout, reason = "x")]
mod engine;
mod knative;
mod policy;
mod step;
mod trace;
use std::time::Duration;
fn main() {
    for service in [20, 100, 500, 2000] { for cold in [50, 250, 500, 1000, 2000] {
    for phase in [0, 500, 1000, 1500] {
        let s = step::Step { service: Duration::from_millis(service), cold: Duration::from_millis(cold), phase: Duration::from_millis(phase) };
        println!("{service} {cold} {phase} {:?} {:?}", step::run(s, step::Scaler::Davit), step::run(s, step::Scaler::Knative));
    }}}
}
