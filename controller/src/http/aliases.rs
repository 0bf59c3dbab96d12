//! Aliases, and what moves them: promotions and canaries.

use axum::extract::State;
use davit_api::{
    AliasName, AliasSettings, AliasView, CanaryView, FunctionName, LIVE, NamespaceName, Promote, VersionView,
    check_alias_name,
};
use http::StatusCode;

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Json, Path};

/// A function's aliases, by name.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/aliases",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    responses((status = 200, body = Vec<AliasView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
) -> Answer<axum::Json<Vec<AliasView>>> {
    Ok(axum::Json(state.registry.list_aliases(&namespace, &function).await?))
}

/// One alias.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/aliases/{alias}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("alias" = AliasName, Path)),
    responses((status = 200, body = AliasView)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Path((namespace, function, alias)): Path<(NamespaceName, FunctionName, AliasName)>,
) -> Answer<axum::Json<AliasView>> {
    Ok(axum::Json(state.registry.alias(&namespace, &function, &alias).await?))
}

/// Makes an alias, or replaces what it was. `live` is one, too: what it leads to answers at the function's address.
#[utoipa::path(put, path = "/v1/namespaces/{ns}/functions/{fn}/aliases/{alias}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("alias" = AliasName, Path)),
    request_body = AliasSettings, responses((status = 200, body = AliasView)))]
pub(super) async fn set(
    Changes(changes): Changes,
    Path((namespace, function, alias)): Path<(NamespaceName, FunctionName, AliasName)>,
    Json(settings): Json<AliasSettings>,
) -> Answer<axum::Json<AliasView>> {
    settings.check()?;
    if alias.as_str() != LIVE {
        check_alias_name(&alias)?;
    }
    Ok(axum::Json(changes.set_alias(&namespace, &function, &alias, &settings).await?))
}

/// Removes an alias. `live` stays, and so does one that invocations which have not ended ask for.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/functions/{fn}/aliases/{alias}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("alias" = AliasName, Path)),
    responses((status = 204)))]
pub(super) async fn remove(
    Changes(changes): Changes,
    Path((namespace, function, alias)): Path<(NamespaceName, FunctionName, AliasName)>,
) -> Answer<StatusCode> {
    changes.remove_alias(&namespace, &function, &alias).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a ready version live, without a build: at once, or in steps that are judged.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/promote",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    request_body = Promote, responses((status = 200, body = VersionView)))]
pub(super) async fn promote(
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Json(promote): Json<Promote>,
) -> Answer<axum::Json<VersionView>> {
    if let Some(spec) = &promote.canary {
        spec.check().map_err(|e| davit_api::ApiError::new(e.code, format!("canary.{}", e.message)))?;
    }
    Ok(axum::Json(changes.promote(&namespace, &function, &promote).await?))
}

/// A function's canaries, newest first: the one that runs, and how the last ones ended.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/canaries",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    responses((status = 200, body = Vec<CanaryView>)))]
pub(super) async fn canaries(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
) -> Answer<axum::Json<Vec<CanaryView>>> {
    Ok(axum::Json(state.registry.list_canaries(&namespace, &function).await?))
}

/// Ends the canary that runs: the old version gets everything.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/canaries/abort",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    responses((status = 200, body = CanaryView)))]
pub(super) async fn abort(
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
) -> Answer<axum::Json<CanaryView>> {
    Ok(axum::Json(changes.end_canary(&namespace, &function, false).await?))
}

/// Ends the canary that runs: the new version gets everything.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/canaries/promote",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    responses((status = 200, body = CanaryView)))]
pub(super) async fn finish(
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
) -> Answer<axum::Json<CanaryView>> {
    Ok(axum::Json(changes.end_canary(&namespace, &function, true).await?))
}
