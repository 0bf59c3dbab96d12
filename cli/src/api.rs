//! davit's API as calls: the one place on this side that knows paths.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use davit_api::{
    BatchAccepted, BuildEvent, DeadLetters, Digest, EnqueueAccepted, FireView, FunctionDetail, FunctionName,
    FunctionSummary, HostPattern, Info, InvocationBatch, InvocationId, InvocationSource, InvocationState,
    InvocationView, InvocationWishes, LiveView, LogLine, NamePart, NamespaceName, NewSchedule, NewSource,
    NewSubscription, NewToken, NewTopic, NewVersion, Page, Preview, PreviewRequest, Published, Purged,
    QualifiedFunction, QueueView, Replay, Replayed, Rollback, RuntimeName, ScheduleName, ScheduleView,
    SecretName, SecretValue, SecretView, SourceName, SourceSql, SourceView, SubscriptionName,
    SubscriptionView, TokenCreated, TokenId, TokenView, TopicDetail, TopicName, TopicView, VersionAccepted,
    VersionView,
};
use reqwest::header::HeaderMap;
use reqwest::{Method, Upgraded};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::upload;

mod aliases;
mod projects;
mod runtimes;

/// A davit's API, from inside one namespace.
#[derive(Clone)]
pub(crate) struct Api {
    management: Client,
    gateway: Option<Client>,
    namespace: NamespaceName,
}

/// Which accepted calls.
#[derive(Clone, Default)]
pub(crate) struct InvocationQuery {
    pub(crate) function: Option<FunctionName>,
    pub(crate) state: Option<InvocationState>,
    pub(crate) source: Option<InvocationSource>,
}

impl InvocationQuery {
    /// As the end of a path. Words, numbers and ids need no encoding.
    fn text(&self) -> String {
        let pair =
            |name: &str, value: Option<String>| value.map(|v| format!("&{name}={v}")).unwrap_or_default();
        pair("state", self.state.map(|s| s.to_string())) + &pair("source", self.source.map(|s| s.to_string()))
    }
}

/// What is said about plain JSON that is published.
#[derive(Default)]
pub(crate) struct PublishQuery {
    pub(crate) kind: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) source: Option<String>,
}

impl PublishQuery {
    /// As the end of a path.
    fn text(&self) -> Result<String> {
        let mut url = reqwest::Url::parse("http://davit/").map_err(|e| Failure::while_doing("query", e))?;
        let pairs =
            [("type", &self.kind), ("subject", &self.subject), ("id", &self.id), ("source", &self.source)];
        url.query_pairs_mut()
            .extend_pairs(pairs.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
        Ok(url.query().unwrap_or_default().to_owned())
    }
}

/// Which lines of a log.
#[derive(Clone, Copy, Default)]
pub(crate) struct LogQuery {
    pub(crate) after: Option<i64>,
    pub(crate) limit: Option<u32>,
    pub(crate) invocation_id: Option<InvocationId>,
    /// Seconds to wait for a first line.
    pub(crate) wait: Option<u32>,
}

impl LogQuery {
    /// As the end of a path. Numbers and ids need no encoding.
    fn text(&self) -> String {
        let pair = |name: &str, value: Option<String>| value.map(|v| format!("{name}={v}"));
        let pairs = [
            pair("after", self.after.map(|v| v.to_string())),
            pair("limit", self.limit.map(|v| v.to_string())),
            pair("invocation_id", self.invocation_id.map(|v| v.to_string())),
            pair("wait", self.wait.map(|v| v.to_string())),
        ];
        pairs.into_iter().flatten().collect::<Vec<_>>().join("&")
    }
}

impl Api {
    /// The API at a management address and, where one is known, a gateway.
    pub(crate) fn new(management: Client, gateway: Option<Client>, namespace: NamespaceName) -> Self {
        Self { management, gateway, namespace }
    }

    /// The namespace it speaks about.
    pub(crate) fn namespace(&self) -> &NamespaceName {
        &self.namespace
    }

    /// The management API's client.
    pub(crate) fn management(&self) -> &Client {
        &self.management
    }

    /// The token, if there is one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.management.token()
    }

    /// The gateway's client.
    pub(crate) fn gateway(&self) -> Result<&Client> {
        self.gateway.as_ref().ok_or_else(|| {
            Failure::Usage(
                "no gateway is known for that davit; give --gateway-url or set DAVIT_GATEWAY_URL".into(),
            )
        })
    }

    /// Asks the management API for its gateway, unless one is known.
    pub(crate) async fn with_gateway(mut self) -> Result<Self> {
        if self.gateway.is_none() {
            let info = self.info().await?;
            self.gateway = Some(self.management.at(&info.gateway_url)?);
        }
        Ok(self)
    }

    /// The function's address, if a gateway is known.
    pub(crate) fn address(&self, function: &FunctionName) -> Option<String> {
        self.gateway.as_ref().map(|g| format!("{}/{}/{function}", g.base(), self.namespace))
    }

    pub(crate) async fn info(&self) -> Result<Info> {
        self.management.get("/v1/info").await
    }

    fn in_namespace(&self, rest: &str) -> String {
        format!("/v1/namespaces/{}/{rest}", self.namespace)
    }

    fn of_function(&self, function: &FunctionName, rest: &str) -> String {
        self.in_namespace(&format!("functions/{function}{rest}"))
    }

    fn of_schedule(&self, function: &FunctionName, schedule: &ScheduleName, rest: &str) -> String {
        self.of_function(function, &format!("/schedules/{schedule}{rest}"))
    }

    pub(crate) async fn put_artifact(
        &self,
        digest: &Digest,
        archive: Vec<u8>,
        progress: &Progress,
    ) -> Result<()> {
        let path = self.in_namespace(&format!("artifacts/{digest}"));
        upload::send(&self.management, &path, archive.into(), progress).await
    }

    pub(crate) async fn create_version(
        &self,
        function: &FunctionName,
        new: &NewVersion,
    ) -> Result<VersionAccepted> {
        self.management.post(&self.of_function(function, "/versions"), new).await
    }

    pub(crate) async fn version(&self, function: &FunctionName, number: u32) -> Result<VersionView> {
        self.management.get(&self.of_function(function, &format!("/versions/{number}"))).await
    }

    /// A function's versions, newest first: all, or at most so many, and whether there are more.
    pub(crate) async fn versions(
        &self,
        function: &FunctionName,
        most: Option<usize>,
    ) -> Result<(Vec<VersionView>, bool)> {
        self.pages(&self.of_function(function, "/versions"), "", 200, most).await
    }

    /// Reads a list page by page, each of at most `page` items, until it ends or `most` items are there; whether there
    /// are more. `filter` is the end of a query that needs no encoding.
    async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        filter: &str,
        page: usize,
        most: Option<usize>,
    ) -> Result<(Vec<T>, bool)> {
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let limit = most.map_or(page, |most| page.min(most - items.len()));
            let answer: Page<T> =
                self.management.get(&format!("{path}?limit={limit}{after}{filter}")).await?;
            items.extend(answer.items);
            let Some(next) = answer.next else { return Ok((items, false)) };
            if most.is_some_and(|most| items.len() >= most) {
                return Ok((items, true));
            }
            after = format!("&after={next}");
        }
    }

    pub(crate) async fn build_events(
        &self,
        function: &FunctionName,
        number: u32,
        after: i64,
        wait: u32,
    ) -> Result<Vec<BuildEvent>> {
        let rest = format!("/versions/{number}/events?after={after}&wait={wait}");
        self.management.get(&self.of_function(function, &rest)).await
    }

    pub(crate) async fn rollback(
        &self,
        function: &FunctionName,
        version: Option<u32>,
    ) -> Result<VersionView> {
        self.management.post(&self.of_function(function, "/rollback"), &Rollback { to: version }).await
    }

    /// The namespace's functions by name: all that are looked for, or at most so many, and whether there are more.
    pub(crate) async fn functions(
        &self,
        search: Option<&NamePart>,
        runtime: Option<&RuntimeName>,
        most: Option<usize>,
    ) -> Result<(Vec<FunctionSummary>, bool)> {
        // Neither has a character that would need encoding.
        let search = search.map(|search| format!("&search={search}")).unwrap_or_default();
        let runtime = runtime.map(|runtime| format!("&runtime={runtime}")).unwrap_or_default();
        self.pages(&self.in_namespace("functions"), &format!("{search}{runtime}"), 1_000, most).await
    }

    pub(crate) async fn function(&self, function: &FunctionName) -> Result<FunctionDetail> {
        self.management.get(&self.of_function(function, "")).await
    }

    /// What is deployed, as an OpenAPI document: all of the namespace or one function, of one host or of all.
    pub(crate) async fn openapi(
        &self,
        function: Option<&FunctionName>,
        host: Option<&HostPattern>,
    ) -> Result<serde_json::Value> {
        // Neither has a character that would need encoding.
        let pairs =
            [("function", function.map(ToString::to_string)), ("host", host.map(ToString::to_string))];
        let pairs: Vec<_> =
            pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?))).collect();
        self.management.get(&self.in_namespace(&format!("openapi.json?{}", pairs.join("&")))).await
    }

    pub(crate) async fn delete_function(&self, function: &FunctionName) -> Result<()> {
        self.management.delete(&self.of_function(function, "")).await
    }

    pub(crate) async fn logs(&self, function: &FunctionName, query: &LogQuery) -> Result<Vec<LogLine>> {
        self.management.get(&self.of_function(function, &format!("/logs?{}", query.text()))).await
    }

    pub(crate) async fn schedules(&self, function: &FunctionName) -> Result<Vec<ScheduleView>> {
        self.management.get(&self.of_function(function, "/schedules")).await
    }

    /// The schedules of all functions.
    pub(crate) async fn all_schedules(&self) -> Result<Vec<ScheduleView>> {
        Ok(self.pages(&self.in_namespace("schedules"), "", 500, None).await?.0)
    }

    /// Changes the named fields; null removes one.
    pub(crate) async fn edit_schedule(
        &self,
        function: &FunctionName,
        schedule: &ScheduleName,
        patch: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<ScheduleView> {
        let path = self.of_schedule(function, schedule, "");
        self.management.json(self.management.request(Method::PATCH, &path).json(patch)).await
    }

    pub(crate) async fn preview(&self, request: &PreviewRequest) -> Result<Preview> {
        self.management.post("/v1/schedules/preview", request).await
    }

    pub(crate) async fn add_schedule(
        &self,
        function: &FunctionName,
        new: &NewSchedule,
    ) -> Result<ScheduleView> {
        self.management.post(&self.of_function(function, "/schedules"), new).await
    }

    pub(crate) async fn remove_schedule(
        &self,
        function: &FunctionName,
        schedule: &ScheduleName,
    ) -> Result<()> {
        self.management.delete(&self.of_schedule(function, schedule, "")).await
    }

    /// `verb` is `pause` or `resume`.
    pub(crate) async fn switch_schedule(
        &self,
        function: &FunctionName,
        schedule: &ScheduleName,
        verb: &str,
    ) -> Result<()> {
        let path = self.of_schedule(function, schedule, &format!("/{verb}"));
        self.management.send(self.management.request(Method::POST, &path)).await.map(|_| ())
    }

    pub(crate) async fn run_schedule(
        &self,
        function: &FunctionName,
        schedule: &ScheduleName,
    ) -> Result<EnqueueAccepted> {
        self.management.post(&self.of_schedule(function, schedule, "/run"), &json!({})).await
    }

    pub(crate) async fn fires(
        &self,
        function: &FunctionName,
        schedule: &ScheduleName,
        before: Option<DateTime<Utc>>,
        limit: u32,
    ) -> Result<Vec<FireView>> {
        // With a Z: a plus sign would have to be encoded.
        let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let before = before.map(|at| format!("&before={}", text(at))).unwrap_or_default();
        let rest = format!("/fires?limit={limit}{before}");
        self.management.get(&self.of_schedule(function, schedule, &rest)).await
    }

    fn of_topic(&self, topic: &TopicName, rest: &str) -> String {
        self.in_namespace(&format!("topics/{topic}{rest}"))
    }

    pub(crate) async fn topics(&self) -> Result<Vec<TopicView>> {
        self.management.get(&self.in_namespace("topics")).await
    }

    pub(crate) async fn topic(&self, topic: &TopicName) -> Result<TopicDetail> {
        self.management.get(&self.of_topic(topic, "")).await
    }

    pub(crate) async fn create_topic(&self, topic: &TopicName) -> Result<TopicView> {
        self.management.post(&self.in_namespace("topics"), &NewTopic { name: topic.clone() }).await
    }

    pub(crate) async fn delete_topic(&self, topic: &TopicName) -> Result<()> {
        self.management.delete(&self.of_topic(topic, "")).await
    }

    pub(crate) async fn subscribe(
        &self,
        topic: &TopicName,
        new: &NewSubscription,
    ) -> Result<SubscriptionView> {
        self.management.post(&self.of_topic(topic, "/subscriptions"), new).await
    }

    pub(crate) async fn unsubscribe(&self, topic: &TopicName, name: &SubscriptionName) -> Result<()> {
        self.management.delete(&self.of_topic(topic, &format!("/subscriptions/{name}"))).await
    }

    /// Delivers messages that are kept once more, a thousand at a time.
    pub(crate) async fn replay(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        which: &Replay,
    ) -> Result<Replayed> {
        self.management.post(&self.of_topic(topic, &format!("/subscriptions/{name}/replay")), which).await
    }

    /// Publishes JSON, which gets a CloudEvent around it.
    pub(crate) async fn publish(
        &self,
        topic: &TopicName,
        data: Vec<u8>,
        query: &PublishQuery,
    ) -> Result<Published> {
        let gateway = self.gateway()?;
        let query = query.text()?;
        let mark = if query.is_empty() { "" } else { "?" };
        let path = self.of_topic(topic, &format!("/messages{mark}{query}"));
        let request = gateway.request(Method::POST, &path);
        gateway.json(request.header("content-type", "application/json").body(data)).await
    }

    pub(crate) async fn set_secret(&self, name: &SecretName, value: &str) -> Result<()> {
        let path = self.in_namespace(&format!("secrets/{name}"));
        let request =
            self.management.request(Method::PUT, &path).json(&SecretValue { value: value.to_owned() });
        self.management.send(request).await.map(|_| ())
    }

    pub(crate) async fn secrets(&self) -> Result<Vec<SecretView>> {
        self.management.get(&self.in_namespace("secrets")).await
    }

    pub(crate) async fn remove_secret(&self, name: &SecretName) -> Result<()> {
        self.management.delete(&self.in_namespace(&format!("secrets/{name}"))).await
    }

    pub(crate) async fn create_source(&self, new: &NewSource) -> Result<SourceView> {
        self.management.post(&self.in_namespace("sources"), new).await
    }

    pub(crate) async fn sources(&self) -> Result<Vec<SourceView>> {
        self.management.get(&self.in_namespace("sources")).await
    }

    pub(crate) async fn source(&self, source: &SourceName) -> Result<SourceView> {
        self.management.get(&self.in_namespace(&format!("sources/{source}"))).await
    }

    /// `verb` is `pause` or `resume`.
    pub(crate) async fn switch_source(&self, source: &SourceName, verb: &str) -> Result<SourceView> {
        self.management.post(&self.in_namespace(&format!("sources/{source}/{verb}")), &json!({})).await
    }

    pub(crate) async fn source_sql(&self, source: &SourceName) -> Result<SourceSql> {
        self.management.get(&self.in_namespace(&format!("sources/{source}/sql"))).await
    }

    pub(crate) async fn remove_source(&self, source: &SourceName, leave_outbox: bool) -> Result<()> {
        let query = if leave_outbox { "?leave_outbox=true" } else { "" };
        self.management.delete(&self.in_namespace(&format!("sources/{source}{query}"))).await
    }

    pub(crate) async fn create_token(&self, new: &NewToken) -> Result<TokenCreated> {
        self.management.post("/v1/tokens", new).await
    }

    pub(crate) async fn tokens(&self) -> Result<Vec<TokenView>> {
        self.management.get("/v1/tokens").await
    }

    pub(crate) async fn revoke_token(&self, id: TokenId) -> Result<()> {
        self.management.delete(&format!("/v1/tokens/{id}")).await
    }

    /// Calls a function and waits for its answer. The longest time budget is 15 minutes. The headers tell
    /// about the call, whether it failed or not.
    pub(crate) async fn invoke(
        &self,
        which: &QualifiedFunction,
        payload: Vec<u8>,
    ) -> Result<(HeaderMap, Vec<u8>), (HeaderMap, Failure)> {
        let bare = |failure| (HeaderMap::new(), failure);
        let gateway = self.gateway().map_err(bare)?;
        let path = self.of_function(&which.function, "/invocations");
        let request = gateway.request(Method::POST, &path).timeout(Duration::from_secs(930));
        let request = asking(request, which);
        gateway.exchange(request.header("content-type", "application/json").body(payload)).await
    }

    /// Which version the gateway serves at this moment.
    pub(crate) async fn live(&self, function: &FunctionName) -> Result<LiveView> {
        self.gateway()?.get(&self.of_function(function, "/live")).await
    }

    /// A connection to the debugger of the function's live version.
    pub(crate) async fn debugger(&self, function: &FunctionName) -> Result<Upgraded> {
        let path = self.of_function(function, "/debugger");
        self.gateway()?.upgrade(&path, davit_api::DEBUGGER_PROTOCOL).await
    }

    /// Hands a call to the durable queue.
    pub(crate) async fn enqueue(
        &self,
        which: &QualifiedFunction,
        payload: Vec<u8>,
        wishes: &InvocationWishes,
    ) -> Result<EnqueueAccepted> {
        let gateway = self.gateway()?;
        let mut request =
            gateway.request(Method::POST, &self.of_function(&which.function, "/invocations?async=true"));
        request = asking(request, which);
        let wished = [
            ("x-davit-delay", wishes.delay_seconds.map(|s| s.to_string())),
            ("x-davit-not-before", wishes.not_before.map(|at| at.to_rfc3339())),
            ("x-davit-priority", Some(wishes.priority.to_string())),
            ("x-davit-ordering-key", wishes.ordering_key.clone()),
            ("idempotency-key", wishes.idempotency_key.clone()),
        ];
        for (name, value) in wished {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        gateway.json(request.header("content-type", "application/json").body(payload)).await
    }

    /// Hands many calls to the durable queue: all are accepted, or none.
    pub(crate) async fn enqueue_batch(
        &self,
        which: &QualifiedFunction,
        batch: &InvocationBatch,
    ) -> Result<BatchAccepted> {
        let gateway = self.gateway()?;
        let path = self.of_function(&which.function, "/invocations/batch");
        let request = asking(gateway.request(Method::POST, &path), which);
        gateway.json(request.json(batch)).await
    }

    /// The state of an accepted call.
    pub(crate) async fn invocation(&self, id: InvocationId) -> Result<InvocationView> {
        self.management.get(&self.in_namespace(&format!("invocations/{id}"))).await
    }

    /// Accepted calls, newest first: all, or at most so many, and whether there are more.
    pub(crate) async fn invocations(
        &self,
        query: &InvocationQuery,
        most: Option<usize>,
    ) -> Result<(Vec<InvocationView>, bool)> {
        let path = match &query.function {
            Some(function) => self.of_function(function, "/invocations"),
            None => self.in_namespace("invocations"),
        };
        self.pages(&path, &query.text(), 500, most).await
    }

    /// What of the namespace's asynchronous work has not ended.
    pub(crate) async fn queue(&self) -> Result<Vec<QueueView>> {
        self.management.get(&self.in_namespace("queue")).await
    }

    /// Ends an accepted call.
    pub(crate) async fn cancel_invocation(&self, id: InvocationId) -> Result<InvocationView> {
        self.management.post(&self.in_namespace(&format!("invocations/{id}/cancel")), &json!({})).await
    }

    /// Accepts an ended call's event again.
    pub(crate) async fn replay_invocation(&self, id: InvocationId) -> Result<EnqueueAccepted> {
        self.management.post(&self.in_namespace(&format!("invocations/{id}/replay")), &json!({})).await
    }

    /// Accepts dead letters again, a thousand at a time.
    pub(crate) async fn redrive(&self, which: &DeadLetters) -> Result<BatchAccepted> {
        self.management.post(&self.in_namespace("dead-letters/redrive"), which).await
    }

    /// Removes dead letters, a thousand at a time.
    pub(crate) async fn purge_dead_letters(&self, which: &DeadLetters) -> Result<Purged> {
        self.management.post(&self.in_namespace("dead-letters/purge"), which).await
    }
}

/// A call that asks for a version or alias, if one is named.
fn asking(request: reqwest::RequestBuilder, which: &QualifiedFunction) -> reqwest::RequestBuilder {
    match &which.qualifier {
        Some(qualifier) => request.header("x-davit-version", qualifier.to_string()),
        None => request,
    }
}
