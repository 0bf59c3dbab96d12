//! Lengths of time as schedules write them: `90s`, `15m`, `6h`, `2d`, or several together: `1h30m`.

use chrono::TimeDelta;

/// No length here is longer: ten years.
const MOST_SECONDS: i64 = 10 * 366 * 86_400;

/// Reads a length of time; the error is a sentence without the field.
pub fn parse_length(text: &str) -> Result<TimeDelta, String> {
    let rule = || {
        let shown: String = text.chars().take(40).collect();
        format!(
            "{shown:?} is not a length of time: write numbers with units, such as 90s, 15m, 6h, 2d or 1h30m"
        )
    };
    let mut seconds: i64 = 0;
    let mut rest = text;
    let mut before = i64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(rule)?;
        let number: i64 = rest[..digits].parse().map_err(|_| rule())?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return Err(rule()),
        };
        // From the largest unit to the smallest, each once: what is written otherwise is a slip.
        if unit >= before {
            return Err(rule());
        }
        before = unit;
        seconds = number.checked_mul(unit).and_then(|n| seconds.checked_add(n)).ok_or_else(rule)?;
        rest = &rest[digits + 1..];
    }
    match seconds {
        0 => Err(rule()),
        s if s > MOST_SECONDS => Err("must be at most ten years".into()),
        s => Ok(TimeDelta::seconds(s)),
    }
}

/// The same length, as short as it can be written.
pub(crate) fn show(length: TimeDelta) -> String {
    let mut left = length.num_seconds();
    let mut text = String::new();
    for (unit, name) in [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')] {
        if left >= unit {
            text += &format!("{}{name}", left / unit);
            left %= unit;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_back_as_they_are_shown() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("6h", 21_600), ("2d", 172_800), ("1h30m", 5_400)]
        {
            assert_eq!(parse_length(text), Ok(TimeDelta::seconds(seconds)), "{text}");
            assert_eq!(parse_length(&show(TimeDelta::seconds(seconds))), Ok(TimeDelta::seconds(seconds)));
        }
        assert_eq!(show(TimeDelta::seconds(90)), "1m30s");
        for bad in ["", "0m", "15", "m", "-5m", "1.5h", "15 m", "30m1h", "1m1m", "9999999999d", "１５m", "5é"]
        {
            assert!(parse_length(bad).is_err(), "{bad}");
        }
    }
}
