//! What a cron line may be made of, checked before croner sees it. croner also reads seconds and years,
//! upper-cases Unicode and replaces names inside words; none of that is meant here.

const MAX_BYTES: usize = 256;
const NICKNAMES: [&str; 6] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];
const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];

/// The line with single spaces, or what is wrong with it.
pub(crate) fn normalise(given: &str) -> Result<String, String> {
    if given.len() > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    if !given.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err("only printable ASCII characters and spaces are allowed".into());
    }
    let fields: Vec<&str> = given.split_ascii_whitespace().collect();
    if let [nickname] = fields[..]
        && NICKNAMES.contains(&nickname)
    {
        return Ok(nickname.to_owned());
    }
    if fields.len() != 5 {
        return Err(format!(
            "{} fields, five are needed: minute, hour, day of month, month, day of week; there is no seconds field",
            fields.len()
        ));
    }
    for (index, field) in fields.iter().enumerate() {
        check_field(index, field)
            .map_err(|token| format!("{token:?} means nothing in the {} field", FIELDS[index]))?;
    }
    Ok(fields.join(" "))
}

/// Checks every word of a field; the error is the word that is not understood.
fn check_field(index: usize, field: &str) -> Result<(), String> {
    let field = if index == 4 { field.strip_prefix('+').unwrap_or(field) } else { field };
    let separators: &[char] = if index == 4 { &[',', '-', '/', '#'] } else { &[',', '-', '/'] };
    for word in field.split(separators) {
        let upper = word.to_ascii_uppercase();
        let number = |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let good = number(&upper)
            || upper == "*"
            || match index {
                2 => {
                    matches!(upper.as_str(), "L" | "LW" | "?") || upper.strip_suffix('W').is_some_and(number)
                }
                3 => MONTHS.contains(&upper.as_str()),
                4 => {
                    let day = |text: &str| number(text) || DAYS.contains(&text);
                    matches!(upper.as_str(), "L" | "?")
                        || day(&upper)
                        || upper.strip_suffix('L').is_some_and(day)
                }
                _ => false,
            };
        if !good {
            return Err(word.chars().take(20).collect());
        }
    }
    Ok(())
}
