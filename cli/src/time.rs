//! Durations as people write them.

/// `90`, `90s`, `15m`, `2h` or `7d` in seconds.
pub(crate) fn seconds(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let number: Option<u32> = number.parse().ok();
    number
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(|| format!("{text:?} is no duration; write 90s, 15m, 2h or 7d"))
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        assert_eq!(
            ["90", "90s", "15m", "2h", "7d"].map(|t| seconds(t).unwrap()),
            [90, 90, 900, 7_200, 604_800]
        );
        for wrong in ["", "m", "1.5h", "-1s", "1 h", "99999999d", "1µ"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
