//! Versions: accepting one to build, and looking at them.

use std::collections::HashSet;

use axum::extract::State;
use axum::response::IntoResponse;
use davit_api::{
    ApiError, BuildEvent, ErrorCode, FunctionKind, FunctionName, NamespaceName, NewVersion, Page,
    ScheduleName, ScheduleSpec, ScheduleView, VersionAccepted, VersionDiff, VersionState, VersionView,
};
use davit_registry::{RegistryError, Topic};
use http::StatusCode;
use serde::Deserialize;

use super::error::{Answer, Failure};
use super::extract::{Changes, Json, Path, Query, page};
use super::{ApiState, poll, schedules};

/// Schedules that one version may bring.
const SCHEDULES: usize = 64;

/// Where to go on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Older {
    /// The `next` of the page before: only older versions than this number.
    after: Option<u32>,
    /// At most this many, 1 to 200; 50 without it.
    limit: Option<u32>,
}

/// A function's versions, newest first, in pages.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/versions",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), Older),
    responses((status = 200, body = Page<VersionView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Query(Older { after, limit }): Query<Older>,
) -> Answer<axum::Json<Page<VersionView>>> {
    // A version has up to some tens of kilobytes of settings.
    let limit = page(limit, 50, 200)?;
    Ok(axum::Json(state.registry.list_versions(&namespace, &function, after, limit).await?))
}

/// One version.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/versions/{n}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("n" = u32, Path)),
    responses((status = 200, body = VersionView)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Path((namespace, function, number)): Path<(NamespaceName, FunctionName, u32)>,
) -> Answer<axum::Json<VersionView>> {
    Ok(axum::Json(state.registry.version(&namespace, &function, checked_number(number)?).await?))
}

/// Accepts a version to build, and says what is to happen when it is ready. The same source with the same settings as a
/// version that is ready answers that one again, with which it happens at once.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/versions",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    request_body = NewVersion, responses((status = 201, body = VersionAccepted), (status = 200, body = VersionAccepted)))]
pub(super) async fn create(
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Json(new): Json<NewVersion>,
) -> Answer<impl IntoResponse> {
    let in_force = in_force(&state, &namespace, &function, &new).await?;
    check(&new, &in_force, state.settings.schedules)?;
    if new.spec.openapi.is_some() {
        // Some milliseconds for a large document.
        let spec = new.spec.clone();
        let checked = tokio::task::spawn_blocking(move || davit_openapi::check(&spec)).await;
        checked.map_err(|e| ApiError::new(ErrorCode::Internal, format!("checking openapi ended: {e}")))??;
    }
    let known: HashSet<_> =
        state.registry.list_secrets(&namespace).await?.into_iter().map(|s| s.name).collect();
    let unknown = new.spec.wanted_secrets().find(|(_, _, secret)| !known.contains(*secret));
    if let Some((field, name, secret)) = unknown {
        return Err(Failure::new(
            ErrorCode::Unprocessable,
            format!("{field}: {name} wants the secret {secret}, which is not set: davit secret set {secret}"),
        ));
    }
    if let Some(secret) = new.spec.image_secret.as_ref().filter(|secret| !known.contains(*secret)) {
        return Err(Failure::new(
            ErrorCode::Unprocessable,
            format!("image_secret: the secret {secret} is not set: davit secret set {secret}"),
        ));
    }
    let accepted = changes.create_version(&namespace, &function, &new).await?;
    let status = if accepted.unchanged { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, axum::Json(accepted)))
}

/// Those of the version's schedules that the function has already. They were checked when they came, and may have ended
/// since: a moment that has passed must not keep its `davit.toml` from being deployed again.
async fn in_force(
    state: &ApiState,
    namespace: &NamespaceName,
    function: &FunctionName,
    new: &NewVersion,
) -> Answer<HashSet<ScheduleName>> {
    if new.schedules.is_empty() {
        return Ok(HashSet::new());
    }
    let known = match state.registry.list_schedules(namespace, function).await {
        Ok(known) => known,
        // Its first version.
        Err(RegistryError::Refused(error)) if error.code == ErrorCode::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let same = |view: &ScheduleView| {
        let told = new.schedules.get(&view.name);
        told.is_some_and(|spec| ScheduleSpec { enabled: view.spec.enabled, ..spec.clone() } == view.spec)
    };
    Ok(known.into_iter().filter(same).map(|view| view.name).collect())
}

/// Everything else that can be refused without asking the registry.
fn check(
    new: &NewVersion,
    in_force: &HashSet<ScheduleName>,
    limits: davit_cron::Limits,
) -> Result<(), ApiError> {
    new.spec.check()?;
    if new.spec.kind == FunctionKind::Handler {
        let checked = new.spec.runtime.check_handler(&new.spec.handler);
        checked.map_err(|problem| ApiError::field("handler", problem))?;
    }
    new.check_words()?;
    if new.schedules.len() > SCHEDULES {
        return Err(ApiError::field("schedules", format!("at most {SCHEDULES}")));
    }
    let now = chrono::Utc::now();
    for (name, spec) in new.schedules.iter().filter(|(name, _)| !in_force.contains(*name)) {
        schedules::check(spec, now, limits)
            .map_err(|e| ApiError::new(e.code, format!("schedules.{name}: {}", e.message)))?;
    }
    Ok(())
}

/// Where to go on in a build's log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Follow {
    /// Only events after this cursor.
    after: Option<i64>,
    /// Seconds to wait for the first one, at most 30. A version that is ready or failed is not waited for.
    wait: Option<u32>,
}

/// A build's log and changes of state.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/versions/{n}/events",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("n" = u32, Path), Follow),
    responses((status = 200, body = Vec<BuildEvent>)))]
pub(super) async fn events(
    State(state): State<ApiState>,
    Path((namespace, function, number)): Path<(NamespaceName, FunctionName, u32)>,
    Query(follow): Query<Follow>,
) -> Answer<axum::Json<Vec<BuildEvent>>> {
    let (namespace, function, number, state) = (&namespace, &function, checked_number(number)?, &state);
    let after = follow.after.unwrap_or(0);
    let found = poll::until(state, Some(Topic::Builds), follow.wait, || async move {
        // The state is read first: a build that ends in between is seen as still running, and looked at again.
        let version = state.registry.version(namespace, function, number).await?;
        let ended = matches!(version.state, VersionState::Ready | VersionState::Failed);
        let events = state.registry.build_events(version.id, after).await?;
        let enough = ended || !events.is_empty();
        Ok((events, enough))
    });
    Ok(axum::Json(found.await?))
}

/// Removes a version that is not in use. Its number is not given again.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/functions/{fn}/versions/{n}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("n" = u32, Path)),
    responses((status = 204)))]
pub(super) async fn remove(
    Changes(changes): Changes,
    Path((namespace, function, number)): Path<(NamespaceName, FunctionName, u32)>,
) -> Answer<StatusCode> {
    changes.delete_version(&namespace, &function, checked_number(number)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the build of a version, or keeps it from beginning: the version is `failed` from then on.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/versions/{n}/cancel",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("n" = u32, Path)),
    responses((status = 204)))]
pub(super) async fn cancel(
    Changes(changes): Changes,
    Path((namespace, function, number)): Path<(NamespaceName, FunctionName, u32)>,
) -> Answer<StatusCode> {
    changes.cancel_build(&namespace, &function, checked_number(number)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What to compare.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Compared {
    /// The older version's number.
    from: u32,
    /// The newer version's number.
    to: u32,
    /// Whether the lines of text files are compared, too.
    lines: Option<bool>,
}

/// What is different between two versions: settings, and files of their sources.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/diff",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), Compared),
    responses((status = 200, body = VersionDiff)))]
pub(super) async fn diff(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Query(Compared { from, to, lines }): Query<Compared>,
) -> Answer<axum::Json<VersionDiff>> {
    let from = state.registry.version(&namespace, &function, checked_number(from)?).await?;
    let to = state.registry.version(&namespace, &function, checked_number(to)?).await?;
    Ok(axum::Json(crate::diff::compare(&state.registry, from, to, lines.unwrap_or(false)).await?))
}

/// Numbers are small: what does not fit the column is not there.
fn checked_number(number: u32) -> Answer<u32> {
    if i32::try_from(number).is_ok() {
        return Ok(number);
    }
    Err(Failure::new(ErrorCode::NotFound, format!("there is no version {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_api::{Digest, VersionSpec};

    fn new(handler: &str) -> NewVersion {
        let mut spec = VersionSpec::new("python3.13".parse().unwrap(), FunctionKind::Handler);
        spec.handler = handler.into();
        NewVersion::of(spec, Digest::from_bytes([0; 32]))
    }

    fn accepted(handler: &str) -> bool {
        check(&new(handler), &HashSet::new(), davit_cron::Limits::default()).is_ok()
    }

    #[test]
    fn a_handler_is_a_module_and_a_function() {
        for good in ["app.handler", "src/app.handler", "pkg.app.handler"] {
            assert!(accepted(good), "{good}");
        }
        for bad in
            ["", "app", ".handler", "app.", "a b.c", "../app.handler", "/etc/app.handler", "app.handler;rm"]
        {
            assert!(!accepted(bad), "{bad}");
        }
    }
}
