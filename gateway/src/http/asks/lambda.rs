//! AWS Lambda's `Invoke` in its own words: names, headers, answers and errors, as botocore's service model of 2015-03-31
//! has them. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use davit_api::{ApiError, ErrorCode, ErrorSource, InvocationId, LIVE, NamespaceName, Qualifier};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::place::Function;
use crate::http::{Body, reply};
use crate::invoke::CallError;

/// A client context as it is sent: base64 of so much ("Lambda API reference", Invoke).
const CONTEXT_BYTES: usize = 3_583;

/// A function as Lambda's clients name one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) function: Function,
    /// Which version of it; none for what is live.
    pub(super) qualifier: Option<Qualifier>,
}

/// `name`, `name:qualifier`, `account:function:name`, or an ARN; and the query's `Qualifier`. The account is the
/// namespace in names of davit's own; in those that name one of AWS's accounts it means nothing here.
pub(super) fn named(text: &str, query: &str) -> Result<Named, ApiError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (account, name, qualifier) = match parts.as_slice() {
        [name] => (None, name, None),
        [name, qualifier] => (None, name, Some(*qualifier)),
        [account, "function", name] => (Some(*account), name, None),
        [account, "function", name, qualifier] => (Some(*account), name, Some(*qualifier)),
        ["arn", partition, "lambda", _, account, "function", name, rest @ ..] if rest.len() < 2 => {
            let account = (*partition == "davit").then_some(*account);
            (account, name, rest.first().copied())
        }
        _ => return Err(ApiError::field("FunctionName", "use a name, or an ARN of a function")),
    };
    let number = |account: &&str| account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let namespace: Option<NamespaceName> =
        account.filter(|account| !number(account)).map(str::parse).transpose()?;
    // AWS allows names that no function of davit can have.
    let name = name.parse().map_err(|e| ApiError::new(ErrorCode::NotFound, format!("{e}")))?;
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("Qualifier="));
    let asked = asked.and_then(crate::routes::path::decode).filter(|asked| !asked.is_empty());
    if let (Some(derived), Some(asked)) = (qualifier, &asked)
        && derived != asked
    {
        let text = "the qualifier of the function's name is another than the one that is asked for";
        return Err(ApiError::field("Qualifier", text));
    }
    let qualifier = match asked.as_deref().or(qualifier) {
        None | Some("$LATEST" | LIVE) => None,
        Some(text) => {
            Some(text.parse().map_err(|e| ApiError::new(ErrorCode::NotFound, format!("{text:?}: {e}")))?)
        }
    };
    Ok(Named { function: Function { namespace, name }, qualifier })
}

/// How a call is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The answer is the result.
    RequestResponse,
    /// The answer is that it will run.
    Event,
    /// The answer is that it could.
    DryRun,
}

/// What the headers of an `Invoke` ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) kind: Kind,
    /// Whether the end of the log is wanted.
    pub(super) tail: bool,
    /// JSON text.
    pub(super) client_context: Option<String>,
}

/// Reads them.
pub(super) fn wishes(headers: &HeaderMap) -> Result<Wishes, ApiError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let kind = match text("x-amz-invocation-type") {
        None | Some("RequestResponse") => Kind::RequestResponse,
        Some("Event") => Kind::Event,
        Some("DryRun") => Kind::DryRun,
        Some(_) => return Err(ApiError::field("InvocationType", "use RequestResponse, Event or DryRun")),
    };
    let tail = match text("x-amz-log-type") {
        None | Some("None") => false,
        Some("Tail") => true,
        Some(_) => return Err(ApiError::field("LogType", "use None or Tail")),
    };
    for (name, field) in
        [("x-amz-tenant-id", "TenantId"), ("x-amz-durable-execution-name", "DurableExecutionName")]
    {
        if headers.contains_key(name) {
            return Err(ApiError::field(field, "there is no such thing here"));
        }
    }
    let client_context = text("x-amz-client-context").map(context).transpose()?;
    Ok(Wishes { kind, tail, client_context })
}

fn context(text: &str) -> Result<String, ApiError> {
    let bad = |what: &str| ApiError::field("ClientContext", what);
    if text.len() > CONTEXT_BYTES {
        return Err(bad("at most 3,583 bytes of base64"));
    }
    let json = STANDARD.decode(text).map_err(|_| bad("must be base64"))?;
    let json = String::from_utf8(json).map_err(|_| bad("must be base64 of JSON"))?;
    serde_json::from_str::<serde::de::IgnoredAny>(&json).map_err(|_| bad("must be base64 of JSON"))?;
    // It travels in a header, which has one line.
    if json.bytes().any(|b| b.is_ascii_control()) {
        return Err(bad("must be JSON in one line"));
    }
    Ok(json)
}

/// A result.
pub(super) fn answered(body: Bytes, version: u32, id: InvocationId) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-amz-executed-version", HeaderValue::from(version));
    headers.insert("x-amzn-requestid", reply::id_value(id));
    response
}

/// An answer without a body: that it will run, or that it could. SDKs count on an id in every answer, so that one without a
/// call gets an id of its own.
pub(super) fn bare(status: StatusCode, id: Option<InvocationId>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let id = id.unwrap_or_default();
    response.headers_mut().insert("x-amzn-requestid", reply::id_value(id));
    response
}

/// The end of the log.
pub(super) fn log_tail(response: &mut Response<Body>, text: &str) {
    if let Ok(value) = HeaderValue::from_str(&STANDARD.encode(text)) {
        response.headers_mut().insert("x-amz-log-result", value);
    }
}

/// A call that failed. What the function did is a result with a mark; and so is the loss of an instance, because the
/// call may have run, and SDKs repeat whatever looks like a failure of the service.
pub(super) fn failed(error: &CallError, version: u32, id: InvocationId) -> Response<Body> {
    let code = error.error.code;
    if code.source() != ErrorSource::Function && code != ErrorCode::InstanceLost {
        return refused(&error.error);
    }
    let reported = error.function_error.clone().unwrap_or_else(|| {
        let kind = match code {
            ErrorCode::FunctionTimeout => "Sandbox.Timedout",
            ErrorCode::FunctionExited => "Runtime.ExitError",
            ErrorCode::FunctionOutOfMemory => "Runtime.OutOfMemory",
            ErrorCode::FunctionResponseTooLarge => "Function.ResponseSizeTooLarge",
            ErrorCode::InstanceLost => "Sandbox.Lost",
            _ => "Runtime.Unknown",
        };
        json!({ "errorType": kind, "errorMessage": error.error.message })
    });
    let mut response = answered(reported.to_string().into(), version, id);
    response.headers_mut().insert("x-amz-function-error", HeaderValue::from_static("Unhandled"));
    response
}

/// An error of the request or of the platform, as the exception that SDKs make of it.
pub(super) fn refused(error: &ApiError) -> Response<Body> {
    use ErrorCode::*;
    let (status, name) = match error.code {
        InvalidRequest if error.message.starts_with("body:") => (400, "InvalidRequestContentException"),
        InvalidRequest | Unprocessable => (400, "InvalidParameterValueException"),
        LoopDetected => (400, "RecursiveInvocationException"),
        Unauthenticated | Forbidden => (403, "AccessDeniedException"),
        NotFound | MethodNotAllowed => (404, "ResourceNotFoundException"),
        Conflict => (409, "ResourceConflictException"),
        TooLarge | HeadersTooLarge => (413, "RequestTooLargeException"),
        UnsupportedMediaType => (415, "UnsupportedMediaTypeException"),
        TooManyRequests | NoCapacity | RateLimited => (429, "TooManyRequestsException"),
        Unavailable => (503, "ServiceException"),
        FunctionError
        | FunctionExited
        | FunctionOutOfMemory
        | FunctionInitFailed
        | FunctionBadResponse
        | FunctionResponseTooLarge
        | FunctionTimeout
        | DeliveryFailed
        | DeliveryRefused
        | InstanceLost
        | Internal => (500, "ServiceException"),
    };
    let fault = if status < 500 { "User" } else { "Service" };
    // Models disagree on the case of the word; SDKs read the one that theirs has.
    let mut body = json!({ "Type": fault, "Message": error.message, "message": error.message });
    if status == 429 {
        body["Reason"] = "ReservedFunctionConcurrentInvocationLimitExceeded".into();
    }
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-amzn-errortype", HeaderValue::from_static(name));
    headers.insert("x-amzn-requestid", reply::id_value(InvocationId::new()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str, query: &str) -> Result<(Option<String>, String, Option<String>), ErrorCode> {
        let named = named(text, query).map_err(|error| error.code)?;
        let Function { namespace, name } = named.function;
        Ok((namespace.map(|n| n.to_string()), name.to_string(), named.qualifier.map(|q| q.to_string())))
    }

    #[test]
    fn every_form_of_a_name_is_read() {
        let found = |namespace: Option<&str>, qualifier: Option<&str>| {
            Ok((namespace.map(str::to_owned), "f".to_owned(), qualifier.map(str::to_owned)))
        };
        for (text, query, expected) in [
            ("f", "", found(None, None)),
            ("f:$LATEST", "", found(None, None)),
            ("f", "Qualifier=%24LATEST", found(None, None)),
            ("f:7", "Qualifier=7", found(None, Some("7"))),
            ("123456789012:function:f", "", found(None, None)),
            ("billing:function:f:live", "", found(Some("billing"), None)),
            ("arn:aws:lambda:eu-central-1:123456789012:function:f", "", found(None, None)),
            ("arn:aws:lambda:eu-central-1:123456789012:function:f:7", "", found(None, Some("7"))),
            ("arn:davit:lambda:local:billing:function:f", "", found(Some("billing"), None)),
            ("f:beta", "", found(None, Some("beta"))),
            ("f:No_Alias", "", Err(ErrorCode::NotFound)),
            ("My_Function", "", Err(ErrorCode::NotFound)),
            ("f:7", "Qualifier=8", Err(ErrorCode::InvalidRequest)),
            ("a:b:c", "", Err(ErrorCode::InvalidRequest)),
            ("arn:davit:lambda:local:davit:function:f", "", Err(ErrorCode::InvalidRequest)),
            ("", "", Err(ErrorCode::NotFound)),
        ] {
            assert_eq!(of(text, query), expected, "{text} {query}");
        }
    }

    #[test]
    fn headers_are_read_and_wrong_ones_named() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            wishes(&pairs.collect())
        };
        let plain = Wishes { kind: Kind::RequestResponse, tail: false, client_context: None };
        assert_eq!(with(&[]), Ok(plain.clone()));
        assert_eq!(
            with(&[("x-amz-invocation-type", "Event")]),
            Ok(Wishes { kind: Kind::Event, ..plain.clone() })
        );
        let context = with(&[("x-amz-client-context", "eyJhIjoxfQ=="), ("x-amz-log-type", "Tail")]);
        assert_eq!(context, Ok(Wishes { tail: true, client_context: Some("{\"a\":1}".into()), ..plain }));
        for (name, value, field) in [
            ("x-amz-invocation-type", "event", "InvocationType"),
            ("x-amz-log-type", "All", "LogType"),
            ("x-amz-client-context", "!", "ClientContext"),
            ("x-amz-client-context", "Zm9v", "ClientContext"),
            ("x-amz-tenant-id", "t", "TenantId"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            assert!(error.message.starts_with(field), "{}", error.message);
        }
    }

    #[test]
    fn what_the_function_did_is_a_result_and_what_the_platform_did_an_exception() {
        for code in ErrorCode::ALL {
            let error = CallError::refused(ApiError::new(*code, "text"));
            let response = failed(&error, 3, InvocationId::new());
            let is_result = response.headers().contains_key("x-amz-function-error");
            let expected = code.source() == ErrorSource::Function || *code == ErrorCode::InstanceLost;
            assert_eq!((is_result, response.status() == 200), (expected, expected), "{code:?}");
            assert_ne!(is_result, response.headers().contains_key("x-amzn-errortype"), "{code:?}");
            if code.retryable() {
                assert!([429, 503].contains(&response.status().as_u16()), "SDKs repeat these: {code:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[a-z0-9:$_.-]{0,60}", query in "[ -~]{0,40}") {
            let _ = named(&text, &query);
        }
    }
}
