//! Schedules: when a function is called by the clock.

use axum::extract::State;
use axum::response::IntoResponse;
use chrono::{DateTime, Offset, Utc};
use davit_api::{
    ApiError, EnqueueAccepted, ErrorCode, Filling, FireView, FunctionName, NamespaceName, NewSchedule, Page,
    Preview, PreviewInstant, PreviewRequest, ScheduleName, ScheduleSpec, ScheduleView, TIMING_FIELDS,
};
use davit_cron::{Limits, Timing, TimingError};
use http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::error::{Answer, Failure};
use super::extract::{Changes, Json, Path, Query, page};

type Named = (NamespaceName, FunctionName, ScheduleName);

/// Refuses what would never come due, comes due too often, or not as its author thinks.
pub(super) fn check(spec: &ScheduleSpec, now: DateTime<Utc>, limits: Limits) -> Result<(), ApiError> {
    check_since(spec, now, now, limits)
}

/// The same for one that was made at that time.
fn check_since(
    spec: &ScheduleSpec,
    created_at: DateTime<Utc>,
    now: DateTime<Utc>,
    limits: Limits,
) -> Result<(), ApiError> {
    timing(spec, created_at)?.check(now, limits).map_err(refused)?;
    spec.check()
}

fn timing(spec: &ScheduleSpec, created_at: DateTime<Utc>) -> Result<Timing, ApiError> {
    Timing::of(spec, created_at).map_err(refused)
}

/// Well-formed and never due is unprocessable; all else is invalid. Both name the field.
fn refused(error: TimingError) -> ApiError {
    let code = if error.never { ErrorCode::Unprocessable } else { ErrorCode::InvalidRequest };
    ApiError::new(code, error.to_string())
}

/// With the next instant where no gateway has computed it yet: they take a moment, and a function that is not live
/// has none that asks for it.
fn with_next(mut view: ScheduleView) -> axum::Json<ScheduleView> {
    fill_next(&mut view, Utc::now());
    axum::Json(view)
}

fn fill_next(view: &mut ScheduleView, now: DateTime<Utc>) {
    if view.spec.enabled && view.next_due_at.is_none() {
        // A stored timing was checked when it came; one that an older davit took for good is left as it is.
        let timing = Timing::of(&view.spec, view.created_at).ok();
        view.next_due_at = timing.and_then(|timing| timing.next_after(now));
    }
}

/// Where to go on, and how far.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct After {
    /// Only schedules after this one, by function and name: `hello/nightly`.
    after: Option<String>,
    /// At most this many, 1 to 1,000; 100 without it.
    limit: Option<u32>,
}

/// The schedules of all functions of a namespace, by function and name, in pages.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/schedules",
    params(("ns" = NamespaceName, Path), After), responses((status = 200, body = Page<ScheduleView>)))]
pub(super) async fn list_all(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
    Query(After { after, limit }): Query<After>,
) -> Answer<axum::Json<Page<ScheduleView>>> {
    let limit = page(limit, 100, 1_000)?;
    let after: Option<(FunctionName, ScheduleName)> = match &after {
        None => None,
        Some(text) => {
            let parts = text.split_once('/').and_then(|(f, s)| Some((f.parse().ok()?, s.parse().ok()?)));
            Some(parts.ok_or_else(|| Failure::invalid("after: write function/schedule"))?)
        }
    };
    let after = after.as_ref().map(|(function, schedule)| (function, schedule));
    let mut views = state.registry.list_schedules_of_namespace(&namespace, after, limit + 1).await?;
    let now = Utc::now();
    views.iter_mut().for_each(|view| fill_next(view, now));
    let cursor = |view: &ScheduleView| format!("{}/{}", view.function, view.name);
    Ok(axum::Json(Page::cut(views, limit, cursor)))
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
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Json(new): Json<NewSchedule>,
) -> Answer<impl IntoResponse> {
    check(&new.spec, Utc::now(), state.settings.schedules)?;
    let view = changes.add_schedule(&namespace, &function, &new.name, &new.spec).await?;
    Ok((StatusCode::CREATED, with_next(view)))
}

/// Changes a schedule's settings in place: each field that the body names takes the place of the old one, and null
/// removes it. Naming one of `cron`, `every` and `at` removes the other two. Unless the timing changes, the next instant
/// stands. What came with a `davit.toml` is as the file says again after the next deployment.
#[utoipa::path(patch, path = "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("schedule" = ScheduleName, Path)),
    request_body = ScheduleSpec, responses((status = 200, body = ScheduleView)))]
pub(super) async fn edit(
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path((namespace, function, schedule)): Path<Named>,
    Json(patch): Json<serde_json::Map<String, serde_json::Value>>,
) -> Answer<axum::Json<ScheduleView>> {
    let limits = state.settings.schedules;
    let edit = move |before: &ScheduleView, now: DateTime<Utc>| {
        let spec = before.spec.patched(&patch)?;
        // One that has ended may still get another payload or pause.
        let timed = TIMING_FIELDS.iter().any(|field| patch.contains_key(*field));
        if timed {
            check_since(&spec, before.created_at, now, limits)?;
        } else {
            timing(&spec, before.created_at)?;
            spec.check()?;
        }
        Ok(spec)
    };
    Ok(with_next(changes.edit_schedule(&namespace, &function, &schedule, edit).await?))
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
    let spec = state.registry.schedule(&namespace, &function, &schedule).await?.spec;
    let now = Utc::now();
    let payload = spec.event(Filling {
        namespace: &namespace,
        function: &function,
        schedule: &schedule,
        due_at: now,
        fired_at: now,
    });
    let invocation_id = changes.run_schedule_now(&namespace, &function, &schedule, payload).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(EnqueueAccepted { invocation_id })))
}

/// Where to go on, and how far.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Before {
    /// Only instants before this one: the last `due_at` of the page before.
    before: Option<DateTime<Utc>>,
    /// At most this many, 1 to 1,000; 100 without it.
    limit: Option<u32>,
}

/// A schedule's recorded instants, newest first.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/fires",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), ("schedule" = ScheduleName, Path), Before),
    responses((status = 200, body = Vec<FireView>)))]
pub(super) async fn fires(
    State(state): State<ApiState>,
    Path((namespace, function, schedule)): Path<Named>,
    Query(Before { before, limit }): Query<Before>,
) -> Answer<axum::Json<Vec<FireView>>> {
    let limit = page(limit, 100, 1_000)?;
    Ok(axum::Json(state.registry.list_fires(&namespace, &function, &schedule, before, limit).await?))
}

/// When a schedule would come due, in UTC and by its own clock, and what the clocks do meanwhile.
#[utoipa::path(post, path = "/v1/schedules/preview", request_body = PreviewRequest,
    responses((status = 200, body = Preview)))]
pub(super) async fn preview(
    State(state): State<ApiState>,
    Json(request): Json<PreviewRequest>,
) -> Answer<axum::Json<Preview>> {
    let count = request.count.unwrap_or(5);
    if !(1..=100).contains(&count) {
        return Err(Failure::invalid("count: must be 1 to 100"));
    }
    let now = Utc::now();
    let timing = timing(&request.spec(), now)?;
    timing.check(now, state.settings.schedules).map_err(refused)?;
    let fires: Vec<DateTime<Utc>> = timing.iter_after(now).take(count as usize).collect();
    let instants = instants(&timing, now, &fires);
    Ok(axum::Json(Preview { fires, instants }))
}

fn instants(timing: &Timing, now: DateTime<Utc>, fires: &[DateTime<Utc>]) -> Vec<PreviewInstant> {
    let offset = |at: DateTime<Utc>| at.with_timezone(&timing.zone()).offset().fix().local_minus_utc();
    let mut before = now;
    let mut seen = Vec::new();
    for due_at in fires {
        let face = davit_cron::face(timing.zone(), *due_at);
        let minutes = (offset(*due_at) - offset(before)) / 60;
        let since = match minutes {
            0 => None,
            1.. => Some(format!("clocks went forward {minutes} min since the one before")),
            ..0 => Some(format!("clocks went back {} min since the one before", -minutes)),
        };
        before = *due_at;
        let rings_before = timing.jitter().map(|window| {
            let end = *due_at + window;
            timing.next_after(*due_at).map_or(end, |next| end.min(next))
        });
        seen.push(PreviewInstant {
            due_at: *due_at,
            local: face.local,
            abbreviation: face.abbreviation,
            clocks: face.note.or(since),
            rings_before,
        });
    }
    seen
}
