//! What can go wrong, and how a constraint's name becomes an answer that a caller understands.

use davit_api::{ApiError, ErrorCode};

/// Why a call to the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A rule refused it, or there is nothing of that name: the caller's mistake, with its answer.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// Postgres does not answer, or not in time.
    #[error("the registry is not available: {0}")]
    Unavailable(String),
    /// What is stored cannot be read: a bug, a wrong master key, or a damaged disk.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// Any other database error: a bug.
    #[error("database error: {0}")]
    Database(sqlx::Error),
}

impl RegistryError {
    /// The answer for a client. Causes stay out of it; log them where this is called.
    pub fn into_api(self) -> ApiError {
        match self {
            Self::Refused(error) => error,
            Self::Unavailable(_) => ApiError::new(
                ErrorCode::Unavailable,
                "the registry is not available at the moment; try again",
            ),
            Self::Damaged(_) | Self::Database(_) => ApiError::new(ErrorCode::Internal, "internal error"),
        }
    }

    pub(crate) fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::Refused(ApiError::new(ErrorCode::NotFound, format!("there is no {what} {name}")))
    }
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::Refused(ApiError::new(ErrorCode::Conflict, message))
    }
    pub(crate) fn damaged(what: &str, problem: impl std::fmt::Display) -> Self {
        Self::Damaged(format!("{what}: {problem}"))
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        error.into_api()
    }
}

/// What each constraint means to a caller. A constraint that is missing here can only be broken by a bug.
fn meaning(constraint: &str) -> Option<(ErrorCode, &'static str)> {
    use ErrorCode::{Conflict, InvalidRequest, NotFound};
    Some(match constraint {
        "namespaces_name_shape"
        | "functions_name_shape"
        | "aliases_name_shape"
        | "schedules_name_shape"
        | "projects_name_shape"
        | "secrets_name_shape"
        | "sources_name_shape"
        | "topics_name_shape"
        | "subscriptions_name_shape" => {
            (InvalidRequest, "a name uses 1 to 63 lower-case letters, digits and hyphens")
        }
        "namespaces_name_taken" => (Conflict, "a namespace of that name exists"),
        "tokens_hash_taken" => (Conflict, "that token exists"),
        "functions_name_taken" => (Conflict, "a function of that name exists"),
        "functions_namespace"
        | "projects_namespace"
        | "secrets_namespace"
        | "tokens_namespace"
        | "sources_namespace"
        | "topics_namespace" => (NotFound, "there is no such namespace"),
        "versions_function"
        | "schedules_function"
        | "sources_function"
        | "invocations_function"
        | "usage_function"
        | "subscriptions_function"
        | "routes_function" => (NotFound, "there is no such function"),
        "versions_number_taken" => (Conflict, "another deployment of this function came first; try again"),
        "versions_source_uploaded" => {
            (Conflict, "the source archive is not uploaded, or was collected; upload it again")
        }
        "versions_bundle_stored" | "dep_cache_artifact" => (Conflict, "the artifact is not stored"),
        "versions_immutable" => (Conflict, "a ready version never changes"),
        "versions_input_fixed" => (Conflict, "what a version was made from never changes"),
        "versions_ready_has_bundle" => (Conflict, "a version without a bundle cannot become ready"),
        "versions_commit_shape" => (InvalidRequest, "git_commit: at most 200 characters"),
        "aliases_version_of_function" => (Conflict, "an alias points to a version of its own function"),
        "aliases_version_ready" => (Conflict, "an alias points to a ready version"),
        "alias_shares_sum" => (InvalidRequest, "versions: the weights of an alias are 100 together"),
        "alias_shares_weight" => (InvalidRequest, "versions: a weight is 1 to 100"),
        "alias_shares_version_of_function" => (Conflict, "an alias points to a version of its own function"),
        "aliases_description_length" | "versions_description_length" => {
            (InvalidRequest, "description: 1 to 500 characters")
        }
        "canaries_one_at_a_time" => (Conflict, "canary: another one is running"),
        "canaries_final" => (Conflict, "canary: it has ended already"),
        "functions_keep" | "namespaces_keep" => (InvalidRequest, "versions: 1 to 1000, days: 0 to 3650"),
        "routes_taken" => (Conflict, "another function has a route for the same host, method and path"),
        "routes_method" | "routes_host_shape" | "routes_path_shape" => {
            (InvalidRequest, "routes: not a valid route")
        }
        "schedules_name_taken" => (Conflict, "a schedule of that name exists"),
        "topics_name_taken" => (Conflict, "a topic of that name exists"),
        "projects_name_taken" => (Conflict, "a project of that name exists"),
        "projects_objects_count" => (InvalidRequest, "objects: at most 2000"),
        "subscriptions_name_taken" => (
            Conflict,
            "the topic has a subscription of that name; one added by hand can be replaced, one of a manifest is changed there",
        ),
        "subscriptions_topic" => (NotFound, "there is no such topic"),
        "messages_event_size" => (ErrorCode::TooLarge, "an event is at most 256 KiB in its JSON form"),
        "sources_name_taken" => (Conflict, "a source of that name exists"),
        "sources_kind" => (InvalidRequest, "spec: a source has a kind"),
        "sources_verified" => (InvalidRequest, "secret: only verify = none goes without one"),
        "fires_once" => (Conflict, "this instant was recorded already"),
        "instances_version_once" => (Conflict, "an instance serves one version"),
        "instances_forward" => (Conflict, "an instance never goes back to an earlier state"),
        "instances_version" => (NotFound, "there is no such version"),
        "invocations_final" => (Conflict, "the invocation has ended already"),
        "invocations_payload_size" => {
            (ErrorCode::TooLarge, "the payload of an asynchronous call is at most 1 MiB")
        }
        "secrets_size" => (ErrorCode::TooLarge, "a secret's value is at most 64 KiB"),
        "tokens_description_length" => (InvalidRequest, "description: 1 to 100 characters"),
        "tokens_role" => (InvalidRequest, "role: use read, invoke, deploy or admin"),
        "audit_append_only" => (Conflict, "the audit log is append-only"),
        _ => return None,
    })
}

impl From<sqlx::Error> for RegistryError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        let Some(database) = error.as_database_error() else {
            return match error {
                Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => {
                    Self::Unavailable(error.to_string())
                }
                sqlx::Error::Protocol(_) => Self::Unavailable(error.to_string()),
                other => Self::Database(other),
            };
        };
        if let Some((code, message)) = database.constraint().and_then(meaning) {
            return ApiError::new(code, message).into();
        }
        match database.code().as_deref().unwrap_or_default() {
            // U+0000: Postgres stores every character but this one.
            "22021" | "22P05" => {
                ApiError::new(ErrorCode::InvalidRequest, "text must not hold the character U+0000").into()
            }
            // Connection exceptions, no resources, shutdown and start-up, and waits that were cut short.
            code if code.starts_with("08")
                || code.starts_with("53")
                || code.starts_with("57")
                || matches!(code, "25P03" | "55P03" | "40001" | "40P01") =>
            {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Database(error),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for RegistryError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(cause) => cause.into(),
            other => Self::Damaged(format!("migrations: {other}")),
        }
    }
}
