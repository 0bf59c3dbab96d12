//! The words every part of davit shares: ids, names, specs, request and response bodies.
//!
//! Only data and its validation live here. No I/O, no clock, no runtime: a crate that needs these types
//! must not inherit anything else by naming them.

mod alias;
mod caller;
mod canary;
mod cloud_event;
mod destination;
mod diff;
mod digest;
mod error;
mod function;
mod http;
mod id;
mod image;
mod instance;
mod invocation;
pub mod latency;
pub mod limits;
mod management;
mod manifest;
mod name;
mod openapi;
mod page;
mod pattern;
mod policy;
mod project;
mod route;
mod runtime;
mod schedule;
mod source;
mod spec;
mod template;
mod text;
mod token;
mod topic;
mod usage;
mod version;

pub use alias::{
    AliasSettings, AliasShare, AliasView, LIVE, QualifiedFunction, Qualifier, Sticky, VersionWeight,
    check_alias_name,
};
pub use caller::{CalledBy, CallerPattern, Lineage, may_call, next_hop};
pub use canary::{CanaryFigures, CanarySpec, CanaryState, CanaryView, LatencyBound, LatencyLimit};
pub use cloud_event::{CloudEvent, EventData};
pub use destination::{Destination, Destinations, EventMode, Webhook};
pub use diff::{Change, FileChange, VersionDiff};
pub use digest::Digest;
pub use error::{ApiError, ErrorBody, ErrorCode, ErrorSource};
pub use function::{FunctionDetail, FunctionSummary, InstanceCounts};
pub use http::{Cors, ErrorPage, FieldName, HeaderChanges, HttpSettings, Origin, RateLimit, RateLimitBy};
pub use id::{
    ArtifactUploadId, CanaryId, FunctionId, GatewayId, InstallationId, InstanceId, InvocationId, MessageId,
    NamespaceId, RequestId, ScheduleId, SourceId, SubscriptionId, TokenId, TopicId, VersionId,
};
pub use image::{ImageName, OWN_REPOSITORY};
pub use instance::{InstanceState, NetworkClass, PoolKey};
pub use invocation::{
    BatchAccepted, BatchItem, EnqueueAccepted, InvocationBatch, InvocationSource, InvocationState,
    InvocationView, InvocationWishes, InvokeOutcome, LogLine, LogStream, PhaseTimings, Priority, SentOn,
};
pub use management::{
    ArtifactAccepted, ArtifactReceived, AuditView, DeadLetters, Info, InstanceView, LiveView, NewNamespace,
    NewSchedule, NewVersion, Preview, PreviewInstant, PreviewRequest, Promote, Purged, QueueView,
    RetentionPolicy, RetentionView, Rollback, Rollout, SecretValue, SecretView, VersionAccepted,
};
pub use manifest::{Manifest, ManifestError, ManifestRoute, ManifestSchedule};
pub use name::{
    AliasName, EnvName, FunctionName, NameError, NamePart, NamespaceName, ProjectName, ScheduleName,
    SecretFileName, SecretName, SourceName, SubscriptionName, TopicName,
};
pub use openapi::{Imported, ImportedRoute, OpenApiDocument, OpenApiFile};
pub use page::Page;
pub use pattern::Pattern;
pub use policy::RetryPolicy;
pub use project::{
    ProjectAlias, ProjectFile, ProjectObject, ProjectRecord, ProjectSecret, ProjectSource,
    ProjectSubscription, ProjectTopic, ProjectView, SecretComparison, line_naming,
};
pub use route::{HostPattern, MethodMatch, PathPattern, PathPrefix, PayloadFormat, RouteSpec};
pub use runtime::{FunctionBehind, RuntimeName, RuntimeUpgrade, RuntimeView};
pub use schedule::{
    FireOutcome, FireView, MissedPolicy, OverlapPolicy, ScheduleSpec, ScheduleView, SkipReason, TIMING_FIELDS,
};
pub use source::{
    ChangeOrder, NewSource, PostgresSource, SourceSpec, SourceSql, SourceState, SourceStatus, SourceView,
    TableEvent, TableName, Verification, WebhookSource,
};
pub use spec::{
    Access, DEBUGGER_PROTOCOL, DebugSettings, FunctionKind, LAYER_PARTS, LAYERS, SECRET_FOLDER, VersionSpec,
};
pub use template::Filling;
pub use token::{NewToken, Role, TokenCreated, TokenView};
pub use topic::{
    BatchPublished, COUNTED, DeliverySettings, FunctionSubscription, MessagePosition, NewSubscription,
    NewTopic, Published, Replay, Replayed, Subscriber, SubscriptionView, TopicDetail, TopicView,
};
pub use usage::{ColdPhases, FunctionUsage};
pub use version::{BuildEvent, VersionState, VersionView};
