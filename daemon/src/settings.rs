//! Settings from the environment. A process reads every setting first and then fails once, naming all the
//! bad ones, before it has bound or touched anything.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Where a setting's text comes from, by its name.
type Source = Box<dyn Fn(&str) -> Option<String> + Send>;

/// Reads settings and remembers what is wrong with them.
///
/// ```
/// let mut settings = davit_daemon::Settings::from_pairs([("DAVIT_PUBLIC", "127.0.0.1:0")]);
/// let public: std::net::SocketAddr = settings.or("DAVIT_PUBLIC", ([127, 0, 0, 1], 7480).into());
/// let url: Option<String> = settings.required("DATABASE_URL");
/// assert_eq!(public.port(), 0);
/// assert_eq!(url, None);
/// assert!(settings.finish().unwrap_err().to_string().contains("DATABASE_URL"));
/// ```
pub struct Settings {
    source: Source,
    problems: Vec<String>,
}

impl Settings {
    /// Settings from this process's environment. An empty variable counts as unset, because that is how
    /// service managers and compose files spell "nothing".
    pub fn from_env() -> Self {
        Self::from_fn(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// Settings from a list, for tests.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let map: std::collections::HashMap<String, String> =
            pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self::from_fn(move |name| map.get(name).cloned())
    }

    fn from_fn(source: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        Self { source: Box::new(source), problems: Vec::new() }
    }

    /// The raw text of a setting.
    pub fn text(&self, name: &str) -> Option<String> {
        (self.source)(name).filter(|text| !text.is_empty())
    }

    /// A setting that may be absent.
    pub fn optional<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, format!("{text:?}: {error}"));
                None
            }
        }
    }

    /// A setting with a default.
    pub fn or<T: FromStr>(&mut self, name: &str, default: T) -> T
    where
        T::Err: fmt::Display,
    {
        self.optional(name).unwrap_or(default)
    }

    /// A setting that must be there. `None` comes with a problem that [`finish`](Self::finish) reports.
    pub fn required<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        if self.text(name).is_none() {
            self.problem(name, "is not set".into());
        }
        self.optional(name)
    }

    /// A length of time such as `250ms`, `10s`, `5m` or `2h`.
    pub fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let Some(text) = self.text(name) else { return default };
        parse_duration(&text).unwrap_or_else(|problem| {
            self.problem(name, format!("{text:?}: {problem}"));
            default
        })
    }

    /// Records a problem that the caller found in a value, such as a bound.
    pub fn problem(&mut self, name: &str, problem: String) {
        self.problems.push(format!("{name} {problem}"));
    }

    /// Fails if anything was wrong, naming all of it.
    pub fn finish(self) -> Result<(), SettingsError> {
        if self.problems.is_empty() { Ok(()) } else { Err(SettingsError(self.problems)) }
    }
}

/// Parses `250ms`, `10s`, `5m` or `2h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let rule = || "write a length of time as a number and a unit: 250ms, 10s, 5m, 2h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| rule())?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(rule()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(rule)
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError(Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "settings: {}", self.0.join("; "))
    }
}
impl std::error::Error for SettingsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut settings = Settings::from_pairs([("A", "x"), ("B", "7"), ("C", "soon")]);
        assert_eq!(settings.or("A", 1u16), 1);
        assert_eq!(settings.or("B", 1u16), 7);
        settings.duration("C", Duration::ZERO);
        let _: Option<String> = settings.required("D");
        let text = settings.finish().unwrap_err().to_string();
        assert!(
            text.contains("A \"x\"") && text.contains("C \"soon\"") && text.contains("D is not set"),
            "{text}"
        );
        assert!(!text.contains("B "), "{text}");
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "s", "1", "1d", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
