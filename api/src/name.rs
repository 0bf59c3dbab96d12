//! Names, valid by construction: whoever holds one need not check it again.
//!
//! The same rules stand as constraints in the database, so that a client which bypasses the CLI, or a bug
//! in the API, still cannot store a bad one.

use std::str::FromStr;

/// Why a name was refused; the text is fit for a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not valid: {rule}")]
pub struct NameError {
    /// What was being named, such as `function name`.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub given: String,
    /// The rule that it breaks, as a sentence.
    pub rule: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $check:path, $rule:expr;)*) => {$(
        crate::text::text_like! { $(#[$doc])* pub struct $name: NameError; }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { kind: $kind, given: text.chars().take(80).collect(), rule: $rule })
                }
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

const LABEL_RULE: &str =
    "use 1 to 63 lower-case letters, digits and hyphens, starting and ending with a letter or digit";

names! {
    /// A namespace's name: a DNS label, because it is the first segment of every function address.
    /// `v1`, `healthz` and names that start with `davit` are reserved for the platform's own paths.
    NamespaceName, "namespace", is_namespace, "use 1 to 63 lower-case letters, digits and hyphens, starting and ending with a letter or digit; v1, healthz and davit* are reserved";
    /// A function's name: a DNS label, because it is part of the address and of host names.
    FunctionName, "function name", is_label, LABEL_RULE;
    /// An alias of a function, such as `live`.
    AliasName, "alias", is_label, LABEL_RULE;
    /// A schedule's name, unique within its function.
    ScheduleName, "schedule name", is_label, LABEL_RULE;
    /// A piece of a name, which a search looks for anywhere in it.
    NamePart, "part of a name", is_part, "use 1 to 63 lower-case letters, digits and hyphens";
    /// A topic's name within a namespace.
    TopicName, "topic name", is_label, LABEL_RULE;
    /// A subscription's name, unique within its topic.
    SubscriptionName, "subscription name", is_label, LABEL_RULE;
    /// A project's name within a namespace.
    ProjectName, "project name", is_label, LABEL_RULE;
    /// A secret's name within a namespace.
    SecretName, "secret name", is_label, LABEL_RULE;
    /// An event source's name within a namespace.
    SourceName, "source name", is_label, LABEL_RULE;
    /// The name of a file that a secret appears as. It is one segment of a path and never hidden, so it cannot lead anywhere else.
    SecretFileName, "file name", is_file, "use 1 to 64 letters, digits, dots, hyphens and underscores, not starting with a dot or a hyphen";
    /// The name of an environment variable that a user may set.
    EnvName, "environment variable", is_env, "use letters, digits and underscores, not starting with a digit, at most 128 characters; names that the platform or the loader reads (AWS_LAMBDA_*, DAVIT_*, LD_*, PATH and the like) are reserved";
}

fn is_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_label(text: &str) -> bool {
    is_part(text) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_namespace(text: &str) -> bool {
    is_label(text) && text != "v1" && text != "healthz" && !text.starts_with("davit")
}

fn is_file(text: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(|b| plain(&b)) && !text.starts_with(['.', '-'])
}

fn is_env(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = (1..=128).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && !bytes[0].is_ascii_digit();
    // Variables which the runtimes, the loader or the interpreter read before any of the user's code runs:
    // setting them would change what the platform executes, not what the function sees.
    const EXACT: [&str; 8] = [
        "PATH",
        "HOME",
        "PORT",
        "_HANDLER",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
    ];
    const PREFIX: [&str; 4] = ["AWS_LAMBDA_", "DAVIT_", "LD_", "_LAMBDA_"];
    shape && !EXACT.contains(&text) && !PREFIX.iter().any(|p| text.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_follow_dns_rules() {
        for good in ["a", "a-b", "0", &"x".repeat(63)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "../x", ".", "a\0", "é", &"x".repeat(64)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad:?}");
        }
        for part in ["-", "-a", "a-"] {
            assert!(part.parse::<NamePart>().is_ok(), "{part}");
        }
        for bad in ["", "A", "%", "a\0", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<NamePart>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_platforms_own_first_segments_are_not_namespaces() {
        for bad in ["v1", "healthz", "davit", "davit-x"] {
            assert!(bad.parse::<NamespaceName>().is_err(), "{bad:?}");
        }
        assert!("default".parse::<NamespaceName>().is_ok());
    }

    #[test]
    fn a_file_is_one_plain_segment() {
        for good in ["db", "tls.key", "Db_Password-1", "_x", "a..b", &"x".repeat(64)] {
            assert!(good.parse::<SecretFileName>().is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", ".x", "-x", "a/b", "../x", "/x", "a\\b", "a\0", "a b", "é", &"x".repeat(65)]
        {
            assert!(bad.parse::<SecretFileName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn loader_and_platform_variables_are_reserved() {
        for bad in ["LD_PRELOAD", "PATH", "A=B", "A\nB", "1A", "", "AWS_LAMBDA_RUNTIME_API", "DAVIT_X"] {
            assert!(bad.parse::<EnvName>().is_err(), "{bad:?}");
        }
        for good in ["A", "_x", "AWS_REGION", "TABLE_NAME"] {
            assert!(good.parse::<EnvName>().is_ok(), "{good}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in ".{0,80}") {
            if let Ok(name) = text.parse::<FunctionName>() {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
        }
    }
}
