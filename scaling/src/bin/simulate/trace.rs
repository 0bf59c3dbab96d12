//! Reads a trace (`traces/README.md` gives the format) and spreads out what it leaves open, by a seeded
//! generator: where in its minute a call falls, and how long each call runs.

use std::time::Duration;

/// One function of a trace.
pub(crate) struct Function {
    pub(crate) memory_mb: u32,
    pub(crate) run: Duration,
    /// Period and phase of its schedule, if a timer triggers it.
    pub(crate) schedule: Option<(Duration, Duration)>,
    /// Arrivals since the trace's start, in order.
    pub(crate) calls: Vec<Duration>,
}

/// A small generator (SplitMix64) whose sequence is part of no library's promise but ours.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Evenly from 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// About a bell curve around 1 with the given deviation, never below a tenth: twelve even numbers summed.
    pub(crate) fn around_one(&mut self, deviation: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.unit()).sum();
        (1.0 + deviation * (sum - 6.0)).max(0.1)
    }
}

/// All functions of a trace; the error names the line.
pub(crate) fn read(text: &str) -> Result<Vec<Function>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    lines.map(|(at, line)| function(line).ok_or_else(|| format!("line {}: not a function", at + 1))).collect()
}

fn function(line: &str) -> Option<Function> {
    let mut words = line.split_ascii_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let _trigger = words.next()?;
    let memory_mb = words.next()?.parse().ok()?;
    let run = Duration::from_millis(words.next()?.parse().ok()?);
    let period: u64 = words.next()?.parse().ok()?;
    let phase = words.next()?.parse().ok()?;
    let calls = match words.next()? {
        "t" => gaps(words)?,
        "m" => minutes(words, &mut Random(number))?,
        _ => return None,
    };
    let schedule = (period > 0).then(|| (Duration::from_secs(period), Duration::from_secs(phase)));
    Some(Function { memory_mb, run, schedule, calls })
}

fn gaps<'a>(words: impl Iterator<Item = &'a str>) -> Option<Vec<Duration>> {
    let mut now = 0;
    words
        .map(|word| {
            now += word.parse::<u64>().ok()? * 100;
            Some(Duration::from_millis(now))
        })
        .collect()
}

fn minutes<'a>(words: impl Iterator<Item = &'a str>, random: &mut Random) -> Option<Vec<Duration>> {
    let (mut calls, mut minute) = (Vec::new(), 0u64);
    for word in words {
        let (times, count) = word.split_once('*').unwrap_or(("1", word));
        let count: usize = count.parse().ok()?;
        for _ in 0..times.parse::<u64>().ok()? {
            let from = calls.len();
            calls.extend((0..count).map(|_| Duration::from_secs_f64((minute as f64 + random.unit()) * 60.0)));
            calls[from..].sort_unstable();
            minute += 1;
        }
    }
    Some(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_are_read() {
        let all = read("# a comment\n0 http 128 20 0 0 t 10 25\n1 timer 256 9 300 60 m 2*1 0 3\n").unwrap();
        assert_eq!(all[0].calls, [Duration::from_secs(1), Duration::from_millis(3_500)]);
        let minutes: Vec<u64> = all[1].calls.iter().map(|c| c.as_secs() / 60).collect();
        assert_eq!(minutes, [0, 1, 3, 3, 3]);
        assert!(all[1].calls.is_sorted() && all[1].schedule.is_some());
        assert!(read("0 http x 20 0 0 t 1").is_err_and(|e| e.contains("line 1")));
    }
}
