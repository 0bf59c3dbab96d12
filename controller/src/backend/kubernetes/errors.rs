//! What the cluster's refusals mean, and what to do about them. Pure.

use kube::core::Status;

use crate::backend::BackendError;

/// What was asked of the cluster, as a Role says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    /// The verb.
    pub verb: &'static str,
    /// The kind of thing.
    pub resource: &'static str,
    /// Where.
    pub namespace: &'a str,
}

/// A failed request to the cluster in davit's words.
pub(super) fn failed(asked: Asked<'_>, error: kube::Error) -> BackendError {
    match error {
        kube::Error::Api(status) => refused(asked, &status),
        other => BackendError::Unavailable(format!("the cluster's API: {}", chain(&other))),
    }
}

/// An error with what is below it, each said once: by itself the upper one seldom says why.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        below = cause.source();
    }
    text
}

/// A refusal, by what the API says (Kubernetes API conventions, "HTTP status codes" and "reasons").
fn refused(asked: Asked<'_>, status: &Status) -> BackendError {
    let Asked { verb, resource, namespace } = asked;
    let said = status.message.trim();
    let refused = |text: String| BackendError::Refused(text);
    match status.code {
        401 => refused(format!(
            "the cluster does not know this controller's account ({said}); let its pod have its service account's token, or give it a KUBECONFIG"
        )),
        // The plugins of admission say "forbidden" as well; each has words of its own.
        403 if said.contains("exceeded quota") || said.contains("failed quota") => {
            refused(format!("namespace {namespace}: {}", from(said, &["exceeded quota", "failed quota"])))
        }
        403 if said.contains("violates PodSecurity") => refused(format!(
            "namespace {namespace}: Pod Security does not let the pod in: {}",
            from(said, &["violates PodSecurity"])
        )),
        403 if said.contains("is being terminated") => {
            refused(format!("namespace {namespace} is being removed"))
        }
        403 if said.contains("cannot") && said.contains("resource") => refused(format!(
            "the controller's service account may not {verb} {resource} in namespace {namespace}: apply the chart's Role and RoleBinding ({said})"
        )),
        404 if said.contains("namespaces") => refused(format!(
            "there is no namespace {namespace}: make it, or name another in the configuration"
        )),
        429 | 500 | 502..=504 if !said.contains("webhook") => {
            BackendError::Unavailable(format!("the cluster's API: {said}"))
        }
        // Webhooks choose their own code; limits and classes of priority or of runtime are refused as 403.
        _ => refused(format!("namespace {namespace}: {said}")),
    }
}

/// The part of a message that begins with one of these words.
fn from<'a>(said: &'a str, words: &[&str]) -> &'a str {
    words.iter().find_map(|word| said.find(word)).map_or(said, |at| &said[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, message: &str) -> BackendError {
        let asked = Asked { verb: "create", resource: "pods", namespace: "fn" };
        refused(asked, &Status { code, message: message.into(), ..Status::default() })
    }

    #[test]
    fn each_refusal_says_whose_it_is() {
        for (code, message, wanted) in [
            (
                403,
                r#"pods is forbidden: User "system:serviceaccount:d:c" cannot create resource "pods" in API group "" in the namespace "fn""#,
                "may not create pods in namespace fn: apply the chart's Role",
            ),
            (
                403,
                r#"pods "x" is forbidden: exceeded quota: few, requested: pods=1, used: pods=3, limited: pods=3"#,
                "namespace fn: exceeded quota: few, requested: pods=1",
            ),
            (
                403,
                r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true"#,
                "Pod Security does not let the pod in",
            ),
            (
                403,
                r#"admission webhook "no.example.com" denied the request: not here"#,
                "admission webhook \"no.example.com\" denied the request: not here",
            ),
            (
                400,
                r#"admission webhook "no.example.com" denied the request: not here"#,
                "namespace fn: admission webhook",
            ),
            (
                500,
                r#"Internal error occurred: failed calling webhook "x": failed to call webhook: connection refused"#,
                "namespace fn: Internal error occurred: failed calling webhook \"x\"",
            ),
            (
                403,
                r#"pods "x" is forbidden: pod rejected: RuntimeClass "kata" not found"#,
                "RuntimeClass \"kata\" not found",
            ),
            (
                403,
                r#"pods "x" is forbidden: no PriorityClass with name high was found"#,
                "no PriorityClass with name high",
            ),
            (
                403,
                r#"pods "x" is forbidden: maximum memory usage per Container is 64Mi, but limit is 128Mi"#,
                "maximum memory usage per Container",
            ),
            (404, r#"namespaces "fn" not found"#, "there is no namespace fn"),
            (401, "Unauthorized", "does not know this controller's account"),
        ] {
            let error = said(code, message);
            assert!(matches!(&error, BackendError::Refused(text) if text.contains(wanted)), "{error}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_an_api_that_does_not_answer() {
        for (code, message) in
            [(503, "apiserver is shutting down"), (429, "too many requests"), (504, "timeout")]
        {
            assert!(matches!(said(code, message), BackendError::Unavailable(_)), "{message}");
        }
    }
}
