//! Functions that call functions: who may, how far a chain goes, and what is noted of the caller.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ApiError, ErrorCode, FunctionName, InvocationId, NamespaceName, limits};

/// Which functions may call one: `orders` (of the same namespace), `billing/report`, `billing/*` (all of a namespace),
/// `*` (all of the same namespace) or `*/*` (all there are).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "billing/report")]
#[schemars(with = "String")]
pub struct CallerPattern(Pattern);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Pattern {
    namespace: Space,
    /// All of them without a name.
    function: Option<FunctionName>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Space {
    /// That of the function that is called.
    Own,
    Named(NamespaceName),
    Any,
}

const FORMS: &str = "write a function of the same namespace, namespace/function, namespace/*, * or */*";

impl FromStr for CallerPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let name = |text: &str| match text {
            "*" => Ok(None),
            name => name.parse().map(Some).map_err(|e: crate::NameError| format!("{e}; {FORMS}")),
        };
        let (namespace, function) = match text.split_once('/') {
            None => (Space::Own, name(text)?),
            Some(("*", "*")) => (Space::Any, None),
            // The same name in another namespace is another tenant's function.
            Some(("*", _)) => {
                return Err(format!("{text:?} would let in namespaces that do not exist yet; {FORMS}"));
            }
            Some((namespace, function)) => {
                let namespace = namespace.parse().map_err(|e: crate::NameError| format!("{e}; {FORMS}"))?;
                (Space::Named(namespace), name(function)?)
            }
        };
        Ok(Self(Pattern { namespace, function }))
    }
}

impl TryFrom<String> for CallerPattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CallerPattern> for String {
    fn from(pattern: CallerPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.namespace {
            Space::Own => {}
            Space::Named(namespace) => write!(f, "{namespace}/")?,
            Space::Any => f.write_str("*/")?,
        }
        f.write_str(self.0.function.as_ref().map_or("*", FunctionName::as_str))
    }
}

impl fmt::Debug for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl CallerPattern {
    fn matches(&self, namespace: &NamespaceName, function: &FunctionName, own: &NamespaceName) -> bool {
        let space = match &self.0.namespace {
            Space::Own => namespace == own,
            Space::Named(named) => namespace == named,
            Space::Any => true,
        };
        space && self.0.function.as_ref().is_none_or(|named| named == function)
    }
}

/// Whether a function may call one of the namespace `own` that lets these in. Without a list that is its own namespace.
pub fn may_call(
    namespace: &NamespaceName,
    function: &FunctionName,
    own: &NamespaceName,
    allowed: Option<&[CallerPattern]>,
) -> bool {
    match allowed {
        None => namespace == own,
        Some(allowed) => allowed.iter().any(|pattern| pattern.matches(namespace, function, own)),
    }
}

/// The function that caused an invocation, by calling another or by publishing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CalledBy {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub function: FunctionName,
    /// Number of its version.
    pub version: u32,
    /// During which of its invocations, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<InvocationId>,
    /// The trace that both belong to, as in `X-Amzn-Trace-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl fmt::Display for CalledBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.function)
    }
}

/// Where an invocation stands in a chain of functions that cause each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// Calls, publications and outcomes sent on from one to the next until this one.
    pub hops: u8,
    /// The function that caused it, where one did.
    pub caller: Option<CalledBy>,
}

/// The place after `hops` in a chain. The end of the longest has none.
pub fn next_hop(hops: u8) -> Result<u8, ApiError> {
    if hops >= limits::HOPS {
        let text = format!(
            "this would be hop {} of a chain of functions that cause each other; it ends after {}",
            u32::from(hops) + 1,
            limits::HOPS
        );
        return Err(ApiError::new(ErrorCode::LoopDetected, text));
    }
    Ok(hops + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allowed(patterns: &[&str]) -> Vec<CallerPattern> {
        patterns.iter().map(|p| p.parse().unwrap()).collect()
    }

    #[test]
    fn patterns_let_in_what_they_name_and_nobody_else() {
        let callers = ["shop/orders", "shop/report", "billing/orders", "billing/report"];
        for (patterns, expected) in [
            (&["orders"][..], &["shop/orders"][..]),
            (&["*"], &["shop/orders", "shop/report"]),
            (&["billing/report"], &["billing/report"]),
            (&["billing/*", "report"], &["shop/report", "billing/orders", "billing/report"]),
            (&["*/*"], &callers),
            (&[], &[]),
        ] {
            let allowed = allowed(patterns);
            let in_: Vec<&str> = callers
                .into_iter()
                .filter(|caller| {
                    let (namespace, function) = caller.split_once('/').unwrap();
                    let own = "shop".parse().unwrap();
                    may_call(&namespace.parse().unwrap(), &function.parse().unwrap(), &own, Some(&allowed))
                })
                .collect();
            assert_eq!(in_, expected, "{patterns:?}");
        }
        let may = |namespace: &str| {
            may_call(&namespace.parse().unwrap(), &"f".parse().unwrap(), &"shop".parse().unwrap(), None)
        };
        assert!(may("shop") && !may("billing"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_forms() {
        for bad in ["", "/", "a/", "/a", "*/orders", "A", "a/b/c", "**", "v1/a", "a b"] {
            let error = bad.parse::<CallerPattern>().unwrap_err();
            assert!(error.contains("namespace/function"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_chain_has_as_many_hops_as_it_says() {
        let mut hops = 0;
        for n in 1..=limits::HOPS {
            hops = next_hop(hops).unwrap();
            assert_eq!(hops, n);
        }
        let error = next_hop(hops).unwrap_err();
        assert_eq!(error.code, ErrorCode::LoopDetected);
        assert!(error.message.contains("hop 9"), "{}", error.message);
    }

    proptest! {
        #[test]
        fn hops_never_run_over(hops in any::<u8>()) {
            match next_hop(hops) {
                Ok(next) => prop_assert!(next == hops + 1 && next <= limits::HOPS),
                Err(_) => prop_assert!(hops >= limits::HOPS),
            }
        }

        #[test]
        fn a_pattern_is_written_as_it_was_read(text in "[a-c*]{0,3}/?[a-c*]{0,3}") {
            if let Ok(pattern) = text.parse::<CallerPattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
