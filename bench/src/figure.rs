//! What a figure is called and what it should be: data beside the scenario that measures it.

/// The bound that a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// Small is good: at most `target`, at best `stretch`.
    AtMost {
        /// What must be reached.
        target: f64,
        /// What would be excellent.
        stretch: f64,
    },
    /// Large is good: at least `target`, at best `stretch`.
    AtLeast {
        /// What must be reached.
        target: f64,
        /// What would be excellent.
        stretch: f64,
    },
    /// Printed for information only.
    None,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Figure {
    /// Short name, such as `S3`; unique.
    pub(crate) id: &'static str,
    /// What is divided by what.
    pub(crate) name: &'static str,
    /// Unit of the two sides; of the value itself when there is no control.
    pub(crate) unit: &'static str,
    /// What it should be.
    pub(crate) goal: Goal,
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost { target, stretch } => write!(f, "<= {} ({})", short(*target), short(*stretch)),
            Self::AtLeast { target, stretch } => write!(f, ">= {} ({})", short(*target), short(*stretch)),
            Self::None => Ok(()),
        }
    }
}

/// How a value stands to its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Even the stretch goal.
    Stretch,
    /// The target.
    Met,
    /// Not the target.
    Missed,
    /// There is nothing to meet.
    Informative,
}

impl Verdict {
    /// As it stands in the table.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stretch => "met, stretch too",
            Self::Met => "met",
            Self::Missed => "NOT MET",
            Self::Informative => "",
        }
    }
}

impl Goal {
    /// Whether a value meets it.
    pub(crate) fn judge(self, value: f64) -> Verdict {
        let (target, stretch) = match self {
            Self::AtMost { target, stretch } => (value <= target, value <= stretch),
            Self::AtLeast { target, stretch } => (value >= target, value >= stretch),
            Self::None => return Verdict::Informative,
        };
        match (target, stretch) {
            (_, true) => Verdict::Stretch,
            (true, false) => Verdict::Met,
            (false, false) => Verdict::Missed,
        }
    }

    /// Target and stretch, if there are any.
    pub(crate) fn bounds(self) -> Option<(f64, f64)> {
        match self {
            Self::AtMost { target, stretch } | Self::AtLeast { target, stretch } => Some((target, stretch)),
            Self::None => None,
        }
    }
}

/// A number with three digits that matter.
pub(crate) fn short(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 5) };
    let text = format!("{value:.*}", digits as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_meets_target_stretch_or_neither() {
        let goal = Goal::AtMost { target: 0.04, stretch: 0.02 };
        assert_eq!(
            [0.01, 0.02, 0.03, 0.041].map(|v| goal.judge(v)),
            [Verdict::Stretch, Verdict::Stretch, Verdict::Met, Verdict::Missed]
        );
        let goal = Goal::AtLeast { target: 0.85, stretch: 1.0 };
        assert_eq!([1.2, 0.9, 0.8].map(|v| goal.judge(v)), [Verdict::Stretch, Verdict::Met, Verdict::Missed]);
    }

    #[test]
    fn numbers_are_short_whatever_their_size() {
        assert_eq!(
            [0.0, 0.04, 0.012345, 1.5, 12.34, 12_345.6].map(short),
            ["0", "0.04", "0.0123", "1.5", "12.3", "12346"]
        );
    }
}
