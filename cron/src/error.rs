//! Why a schedule was refused. The controller turns these into answers that name the field.

/// Why a cron line or time zone was refused; the text is fit for a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five well-formed fields.
    #[error("cron line {given:?}: {problem}")]
    Malformed {
        /// What was given, cut to 80 characters.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Well-formed, but no date matches it.
    #[error("cron line {0:?} never fires: no date of the calendar matches its day and month fields")]
    NeverFires(String),
    /// Not a name of the IANA time zone database.
    #[error("time zone {0:?} is not known: use an IANA name such as Europe/Berlin or UTC")]
    UnknownZone(String),
}

/// Why a schedule's timing was refused: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct TimingError {
    /// The field of the schedule, such as `every`.
    pub field: &'static str,
    /// The problem, as a sentence without the field; fit for a user.
    pub problem: String,
    /// Whether it is well-formed and only never comes due.
    pub never: bool,
}

impl TimingError {
    pub(crate) fn malformed(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into(), never: false }
    }
    pub(crate) fn never(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into(), never: true }
    }
}

impl From<CronError> for TimingError {
    fn from(error: CronError) -> Self {
        let field = match error {
            CronError::UnknownZone(_) => "timezone",
            CronError::Malformed { .. } | CronError::NeverFires(_) => "cron",
        };
        Self { field, never: matches!(error, CronError::NeverFires(_)), problem: error.to_string() }
    }
}
