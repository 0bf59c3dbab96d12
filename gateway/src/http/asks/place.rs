//! What a function asks for, from method, path and query alone. Pure.
//!
//! ```text
//! POST /v1/functions/{function}/invocations              also below /v1/namespaces/{namespace}
//! POST /v1/functions/{function}/invocations/batch
//! POST /v1/topics/{topic}/messages
//! POST /2015-03-31/functions/{function}/invocations      AWS Lambda's `Invoke`
//! ```

use davit_api::{ApiError, ErrorCode, FunctionName, NamespaceName, TopicName};

use super::lambda::{self, Named};
use crate::routes::path::decode;

/// What is asked for, and in whose words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// One call, now or later.
    Invoke(Function),
    /// Many calls, later.
    Batch(Function),
    /// Publishing. Without a namespace, in the caller's.
    Publish(Option<NamespaceName>, TopicName),
    /// AWS Lambda's `Invoke`.
    Lambda(Named),
}

/// A function by its names; without a namespace, of the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) namespace: Option<NamespaceName>,
    pub(super) name: FunctionName,
}

/// Whether an answer has to be in the words of AWS Lambda, an error included.
pub(super) fn is_lambda(path: &str) -> bool {
    !path.starts_with("/v1/")
}

/// Reads it.
pub(super) fn read(method: &str, path: &str, query: &str) -> Result<Place, ApiError> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let place = match segments.as_slice() {
        ["v1", "namespaces", namespace, rest @ ..] => own(Some(namespace.parse()?), rest)?,
        ["v1", rest @ ..] => own(None, rest)?,
        ["2015-03-31", "functions", function, "invocations"] => {
            let function = decode(function).unwrap_or_default();
            Some(Place::Lambda(lambda::named(&function, query)?))
        }
        _ => None,
    };
    let place = place.ok_or_else(|| {
        let text = format!(
            "functions can ask for /v1/functions/NAME/invocations, /v1/topics/NAME/messages and AWS Lambda's Invoke, not for {}",
            path.chars().take(200).collect::<String>()
        );
        ApiError::new(ErrorCode::NotFound, text)
    })?;
    if method != "POST" {
        return Err(ApiError::new(ErrorCode::MethodNotAllowed, "this address takes POST"));
    }
    Ok(place)
}

fn own(namespace: Option<NamespaceName>, rest: &[&str]) -> Result<Option<Place>, ApiError> {
    Ok(Some(match rest {
        ["functions", name, "invocations"] => Place::Invoke(Function { namespace, name: name.parse()? }),
        ["functions", name, "invocations", "batch"] => {
            Place::Batch(Function { namespace, name: name.parse()? })
        }
        ["topics", topic, "messages"] => Place::Publish(namespace, topic.parse()?),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn function(namespace: Option<&str>, name: &str) -> Function {
        Function { namespace: namespace.map(|n| n.parse().unwrap()), name: name.parse().unwrap() }
    }

    #[test]
    fn every_address_is_what_it_says() {
        let read = |path: &str| read("POST", path, "").unwrap();
        assert_eq!(read("/v1/functions/a/invocations"), Place::Invoke(function(None, "a")));
        assert_eq!(
            read("/v1/namespaces/n/functions/a/invocations/batch"),
            Place::Batch(function(Some("n"), "a"))
        );
        assert_eq!(read("/v1/topics/t/messages"), Place::Publish(None, "t".parse().unwrap()));
        let Place::Lambda(named) =
            read("/2015-03-31/functions/arn%3Adavit%3Alambda%3Alocal%3An%3Afunction%3Aa/invocations")
        else {
            panic!()
        };
        assert_eq!(named.function, function(Some("n"), "a"));
    }

    #[test]
    fn everything_else_is_not_found_and_names_are_checked() {
        let code = |method: &str, path: &str| read(method, path, "").unwrap_err().code;
        for path in [
            "/v1/functions",
            "/v1/functions/a",
            "/v1/functions/a/invocations/x",
            "/v1/tokens",
            "/2015-03-31/functions/",
            "/2021-11-15/functions/a/response-streaming-invocations",
            "/2014-11-13/functions/a/invoke-async/",
        ] {
            assert_eq!(code("POST", path), ErrorCode::NotFound, "{path}");
        }
        assert_eq!(code("GET", "/v1/functions/a/invocations"), ErrorCode::MethodNotAllowed);
        assert_eq!(code("POST", "/v1/functions/A_b/invocations"), ErrorCode::InvalidRequest);
        assert_eq!(code("POST", "/v1/namespaces/davit/topics/t/messages"), ErrorCode::InvalidRequest);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(method in "GET|POST|PUT", path in "(/[a-z0-9%:*$.-]{0,12}){0,7}", query in "[ -~]{0,40}") {
            let _ = read(&method, &path, &query);
        }
    }
}
