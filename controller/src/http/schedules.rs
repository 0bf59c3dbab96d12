//! Schedules: when a function is called by the clock.

use axum::extract::State;
use axum::response::IntoResponse;
use chrono::Utc;
use davit_api::{
    ApiError, EnqueueAccepted, ErrorCode, FireView, FunctionName, NamespaceName, NewSchedule, Preview,
    PreviewRequest, ScheduleName, ScheduleSpec, ScheduleView, limits,
};
use davit_cron::{CronLine, parse_zone};
use http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::error::{Answer, Failure};
use super::extract::{Changes, Json, Path, Query, page};

type Named = (NamespaceName, FunctionName, ScheduleName);

/// Refuses what would never fire, or not as its author thinks.
pub(super) fn check(spec: &ScheduleSpec) -> Result<(), ApiError> {
    line_and_zone(&spec.cron, &spec.timezone)?;
    let size = spec.payload.as_ref().map_or(0, |payload| payload.to_string().len());
    if size > limits::ASYNC_PAYLOAD_BYTES {
        return Err(ApiError::new(ErrorCode::TooLarge, "payload: larger than 1 MiB"));
    }
    Ok(())
}

fn line_and_zone(cron: &str, zone: &str) -> Result<(CronLine, davit_cron::Tz), ApiError> {
    use davit_cron::CronError::{Malformed, NeverFires, UnknownZone};
    let refused = |error: davit_cron::CronError| {
        let code = match error {
            Malformed { .. } | UnknownZone(_) => ErrorCode::InvalidRequest,
            NeverFires(_) => ErrorCode::Unprocessable,
        };
        ApiError::new(code, error.to_string())
    };
    Ok((cron.parse().map_err(refused)?, parse_zone(zone).map_err(refused)?))
}

/// With the next instant where no gateway has computed it yet: they take a moment, and a function that is not live
/// has none that asks for it.
fn with_next(mut view: ScheduleView) -> axum::Json<ScheduleView> {
    fill_next(&mut view, Utc::now());
    axum::Json(view)
}

fn fill_next(view: &mut ScheduleView, now: chrono::DateTime<Utc>) {
    if view.spec.enabled && view.next_due_at.is_none() {
        // A stored line was checked when it came; one that an older davit took for good is left as it is.
        let checked = line_and_zone(&view.spec.cron, &view.spec.timezone).ok();
        view.next_due_at = checked.and_then(|(line, zone)| line.next_after(now, zone));
    }
}

/// A function's schedules.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/schedules",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)), responses((status = 200, body = Vec<ScheduleView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
) -> Answer<axum::Json<Vec<ScheduleView>>> {
    let mut views = state.registry.list_schedules(&namespace, &function).await?;
    let now = Utc::now();
    views.iter_mut().for_each(|view| fill_next(view, now));
    Ok(axum::Json(views))
}

/// Adds a schedule by hand; it stays over deployments.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/schedules",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    request_body = NewSchedule, responses((status = 201, body = ScheduleView)))]
pub(super) async fn add(
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Json(new): Json<NewSchedule>,
) -> Answer<impl IntoResponse> {
    check(&new.spec)?;
    let view = changes.add_schedule(&namespace, &function, &new.name, &new.spec).await?;
    Ok((StatusCode::CREATED, with_next(view)))
}

/// Removes a schedule and its record of instants.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("schedule" = ScheduleName, Path)),
    responses((status = 204)))]
pub(super) async fn remove(
    Changes(changes): Changes,
    Path((namespace, function, schedule)): Path<Named>,
) -> Answer<StatusCode> {
    changes.remove_schedule(&namespace, &function, &schedule).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stops a schedule from ringing. Instants that pass meanwhile do not count as missed.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/pause",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("schedule" = ScheduleName, Path)),
    responses((status = 200, body = ScheduleView)))]
pub(super) async fn pause(
    Changes(changes): Changes,
    Path((namespace, function, schedule)): Path<Named>,
) -> Answer<axum::Json<ScheduleView>> {
    Ok(axum::Json(changes.pause_schedule(&namespace, &function, &schedule).await?))
}

/// Lets it ring again, from the next instant on.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/resume",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("schedule" = ScheduleName, Path)),
    responses((status = 200, body = ScheduleView)))]
pub(super) async fn resume(
    Changes(changes): Changes,
    Path((namespace, function, schedule)): Path<Named>,
) -> Answer<axum::Json<ScheduleView>> {
    Ok(with_next(changes.resume_schedule(&namespace, &function, &schedule).await?))
}

/// Runs a schedule's event now, besides its instants.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/run",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("schedule" = ScheduleName, Path)),
    responses((status = 202, body = EnqueueAccepted)))]
pub(super) async fn run(
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path((namespace, function, schedule)): Path<Named>,
) -> Answer<impl IntoResponse> {
    let all = state.registry.list_schedules(&namespace, &function).await?;
    let found = all.into_iter().find(|s| s.name == schedule);
    let spec = found
        .ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("there is no schedule {schedule}")))?
        .spec;
    let payload = spec.event(&namespace, &function, &schedule, Utc::now());
    let invocation_id = changes.run_schedule_now(&namespace, &function, &schedule, payload).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(EnqueueAccepted { invocation_id })))
}

/// How many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Limit {
    /// At most this many, 1 to 1,000; 100 without it.
    limit: Option<u32>,
}

/// A schedule's recorded instants, newest first.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/fires",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("schedule" = ScheduleName, Path), Limit),
    responses((status = 200, body = Vec<FireView>)))]
pub(super) async fn fires(
    State(state): State<ApiState>,
    Path((namespace, function, schedule)): Path<Named>,
    Query(Limit { limit }): Query<Limit>,
) -> Answer<axum::Json<Vec<FireView>>> {
    let limit = page(limit, 100, 1_000)?;
    Ok(axum::Json(state.registry.list_fires(&namespace, &function, &schedule, limit).await?))
}

/// When a cron line would fire.
#[utoipa::path(post, path = "/v1/schedules/preview", request_body = PreviewRequest,
    responses((status = 200, body = Preview)))]
pub(super) async fn preview(Json(request): Json<PreviewRequest>) -> Answer<axum::Json<Preview>> {
    let (line, zone) = line_and_zone(&request.cron, request.timezone.as_deref().unwrap_or("UTC"))?;
    let count = request.count.unwrap_or(5);
    if !(1..=100).contains(&count) {
        return Err(Failure::invalid("count: must be 1 to 100"));
    }
    Ok(axum::Json(Preview { fires: line.preview(Utc::now(), zone, count as usize) }))
}
