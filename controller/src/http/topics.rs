//! Topics and their subscriptions. What is published comes in at the gateway.

use axum::extract::State;
use axum::response::IntoResponse;
use davit_api::{
    ErrorCode, NamespaceName, NewSubscription, NewTopic, Replay, Replayed, SubscriptionName,
    SubscriptionView, TopicDetail, TopicName, TopicView,
};
use http::StatusCode;

use super::ApiState;
use super::error::{Answer, Failure};
use super::extract::{Changes, Json, Path};

/// A namespace's topics, by name.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/topics", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = Vec<TopicView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<axum::Json<Vec<TopicView>>> {
    Ok(axum::Json(state.registry.list_topics(&namespace).await?))
}

/// Makes a topic.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/topics", params(("ns" = NamespaceName, Path)),
    request_body = NewTopic, responses((status = 201, body = TopicView)))]
pub(super) async fn create(
    Changes(changes): Changes,
    Path(namespace): Path<NamespaceName>,
    Json(new): Json<NewTopic>,
) -> Answer<impl IntoResponse> {
    Ok((StatusCode::CREATED, axum::Json(changes.create_topic(&namespace, &new.name).await?)))
}

/// Everything about one topic: its subscriptions, and how much they have still to deliver.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/topics/{topic}",
    params(("ns" = NamespaceName, Path), ("topic" = TopicName, Path)), responses((status = 200, body = TopicDetail)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Path((namespace, topic)): Path<(NamespaceName, TopicName)>,
) -> Answer<axum::Json<TopicDetail>> {
    Ok(axum::Json(state.registry.topic_detail(&namespace, &topic).await?))
}

/// Removes a topic with its subscriptions. What was accepted for delivery is delivered.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/topics/{topic}",
    params(("ns" = NamespaceName, Path), ("topic" = TopicName, Path)), responses((status = 204)))]
pub(super) async fn delete(
    Changes(changes): Changes,
    Path((namespace, topic)): Path<(NamespaceName, TopicName)>,
) -> Answer<StatusCode> {
    changes.delete_topic(&namespace, &topic).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Adds a subscription by hand; it stays over deployments.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/topics/{topic}/subscriptions",
    params(("ns" = NamespaceName, Path), ("topic" = TopicName, Path)),
    request_body = NewSubscription, responses((status = 201, body = SubscriptionView)))]
pub(super) async fn subscribe(
    Changes(changes): Changes,
    Path((namespace, topic)): Path<(NamespaceName, TopicName)>,
    Json(new): Json<NewSubscription>,
) -> Answer<impl IntoResponse> {
    new.check()?;
    Ok((StatusCode::CREATED, axum::Json(changes.subscribe(&namespace, &topic, &new).await?)))
}

/// Removes a subscription. What was accepted for delivery is delivered.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/topics/{topic}/subscriptions/{subscription}",
    params(("ns" = NamespaceName, Path), ("topic" = TopicName, Path), ("subscription" = SubscriptionName, Path)),
    responses((status = 204)))]
pub(super) async fn unsubscribe(
    Changes(changes): Changes,
    Path((namespace, topic, subscription)): Path<(NamespaceName, TopicName, SubscriptionName)>,
) -> Answer<StatusCode> {
    changes.unsubscribe(&namespace, &topic, &subscription).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Delivers messages that are kept to one subscription once more, at most a thousand a call: `next` of the answer says
/// where to go on, and with it `to` is said again.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/topics/{topic}/subscriptions/{subscription}/replay",
    params(("ns" = NamespaceName, Path), ("topic" = TopicName, Path), ("subscription" = SubscriptionName, Path)),
    request_body = Replay, responses((status = 202, body = Replayed)))]
pub(super) async fn replay(
    Changes(changes): Changes,
    Path((namespace, topic, subscription)): Path<(NamespaceName, TopicName, SubscriptionName)>,
    Json(which): Json<Replay>,
) -> Answer<impl IntoResponse> {
    if which.to.is_some_and(|to| to <= which.from) {
        return Err(Failure::new(ErrorCode::InvalidRequest, "to: must be later than from"));
    }
    let replayed = changes.replay(&namespace, &topic, &subscription, which).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(replayed)))
}
