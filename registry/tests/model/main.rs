//! The queue's second proof. `rules.rs` is the queue without a database: what each statement does, as a few lines.
//! Here gateways that crash, freeze, come back late and lose answers work by those rules in simulated time, a seed a
//! life, and everything that was promised is checked. `against_postgres.rs` checks that the statements do what the
//! rules say.
//!
//! `DAVIT_MODEL_SEEDS` says how many lives are lived (5,000); `DAVIT_MODEL_SEED` lives one, to look at it.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

// Left out when the rules are compiled alone, optimised and without dependencies, to live a million lives.
#[cfg(feature = "testing")]
mod against_postgres;
mod chance;
mod life;
mod rules;

#[test]
fn nothing_accepted_is_lost_ends_twice_or_overtakes_whatever_happens_to_gateways() {
    if let Some(seed) = setting("DAVIT_MODEL_SEED") {
        life::live(seed);
        return;
    }
    let seeds = setting("DAVIT_MODEL_SEEDS").unwrap_or(5_000);
    let total = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let work =
            move |thread: u64| (thread..seeds).step_by(threads as usize).map(life::live).sum::<life::Seen>();
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().map(|one| one.join().unwrap()).sum::<life::Seen>()
    });
    println!("{seeds} lives: {total}");
    // A life in which nothing happens proves nothing.
    assert!(
        total.kills > seeds && total.late_settlements > seeds / 4 && total.repeated > seeds / 2,
        "{total}"
    );
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}
