//! How a command fails: a sentence, and an exit code that a script can tell apart.

use std::fmt;

use davit_api::{ErrorBody, ErrorCode, ErrorSource};

/// A command's failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or a file it names is wrong; exit code 2.
    Usage(String),
    /// Something on this side failed; exit code 1.
    Failed(String),
    /// davit answered with an error; the exit code depends on it.
    Refused(Box<ErrorBody>),
    /// davit did not answer; exit code 6.
    Unreachable(String),
    /// Nothing failed: there is something to apply, and it was only asked for; exit code 7.
    Pending(String),
}

impl Failure {
    /// A failure of this side, with what was being done.
    pub(crate) fn while_doing(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }

    /// The same failure, with where it happened before its words.
    pub(crate) fn at(self, place: impl fmt::Display) -> Self {
        match self {
            Self::Usage(text) => Self::Usage(format!("{place}: {text}")),
            Self::Failed(text) => Self::Failed(format!("{place}: {text}")),
            Self::Refused(mut body) => {
                body.message = format!("{place}: {}", body.message);
                Self::Refused(body)
            }
            other @ (Self::Unreachable(_) | Self::Pending(_)) => other,
        }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 6,
            Self::Pending(_) => 7,
            Self::Refused(body) => match body.code {
                _ if body.source == ErrorSource::Function => 3,
                ErrorCode::Unauthenticated | ErrorCode::Forbidden => 4,
                ErrorCode::NotFound => 5,
                ErrorCode::Unavailable
                | ErrorCode::NoCapacity
                | ErrorCode::TooManyRequests
                | ErrorCode::InstanceLost => 6,
                _ => 1,
            },
        }
    }

    /// What the user might do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable(_) => {
                Some("is davit running? `davit up` starts one, `davit doctor` looks for problems")
            }
            Self::Refused(body) => match body.code {
                ErrorCode::Unauthenticated => Some("set DAVIT_TOKEN, or give --token"),
                ErrorCode::Forbidden => Some("this token's role or namespace does not reach that"),
                _ => None,
            },
            Self::Usage(_) | Self::Failed(_) | Self::Pending(_) => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) | Self::Unreachable(text) | Self::Pending(text) => {
                f.write_str(text)
            }
            Self::Refused(body) => {
                f.write_str(&body.message)?;
                if let Some(id) = &body.request_id {
                    write!(f, " (request {id})")?;
                }
                Ok(())
            }
        }
    }
}

/// The result of everything a command does.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;
    use davit_api::ApiError;

    #[test]
    fn every_code_of_the_api_has_an_exit_code() {
        let exit = |code| Failure::Refused(Box::new(ApiError::new(code, "x").body())).exit_code();
        for code in ErrorCode::ALL {
            assert!((1..=6).contains(&exit(*code)), "{code:?}");
        }
        assert_eq!(exit(ErrorCode::FunctionTimeout), 3);
        assert_eq!(exit(ErrorCode::Forbidden), 4);
        assert_eq!(exit(ErrorCode::NotFound), 5);
        assert_eq!(exit(ErrorCode::NoCapacity), 6);
        assert_eq!(exit(ErrorCode::Conflict), 1);
    }
}
