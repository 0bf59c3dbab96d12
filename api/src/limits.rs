//! Bounds of what users set and send. Where AWS Lambda has a bound its value is taken (Lambda quotas page), so that what
//! fits there fits here.

/// Memory of an instance in MiB.
pub const MEMORY_MB: std::ops::RangeInclusive<u32> = 64..=10_240;
/// CPUs of an instance, in thousandths.
pub const CPU_MILLIS: std::ops::RangeInclusive<u32> = 50..=16_000;
/// Time budget of a call in seconds.
pub const TIMEOUT_SECONDS: std::ops::RangeInclusive<u32> = 1..=900;
/// Time budget of one attempt of an asynchronous call in seconds: up to 12 hours.
pub const ASYNC_TIMEOUT_SECONDS: std::ops::RangeInclusive<u32> = 1..=43_200;
/// Calls at a time in one instance.
pub const CONCURRENCY: std::ops::RangeInclusive<u32> = 1..=1_000;
/// Instances of one version at a time.
pub const MAX_INSTANCES: std::ops::RangeInclusive<u32> = 1..=1_000;
/// Size of /tmp in MiB.
pub const EPHEMERAL_MB: std::ops::RangeInclusive<u32> = 16..=10_240;
/// Idle time before an instance is let go, in seconds.
pub const KEEP_ALIVE_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;
/// The same where the manifest leaves it to davit. What comes less often than that is started ahead of time
/// where it is regular, and cold where it is not.
pub const AUTOMATIC_KEEP_ALIVE_SECONDS: u32 = 3_600;
/// Environment variables of a version.
pub const ENV_COUNT: usize = 256;
/// All names and values of the environment together, in bytes.
pub const ENV_BYTES: usize = 32 * 1024;
/// Event or result of a call, in bytes: 6 MiB and a margin, as at AWS.
pub const PAYLOAD_BYTES: usize = 6_291_556;
/// Largest body of a request that a server can be set to take, in bytes.
pub const REQUEST_BYTES: u64 = 1 << 40;
/// Levels of arrays and objects in each other in a JSON event. What languages' parsers take varies (Python's gives
/// up somewhere between 9,000 and 20,000, others at 1,000 or less): this is below them, so that none is blamed.
pub const JSON_DEPTH: usize = 500;
/// Asynchronous invocations in one batch.
pub const BATCH: usize = 1_000;
/// Longest time that an asynchronous invocation can be put off: 30 days, in seconds.
pub const DELAY_SECONDS: u32 = 30 * 86_400;
/// Longest ordering key.
pub const ORDERING_KEY_CHARS: usize = 128;
/// Longest idempotency key.
pub const IDEMPOTENCY_KEY_CHARS: usize = 256;
/// Payload of an asynchronous invocation, in bytes.
pub const ASYNC_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Missed instants of a schedule that may run.
pub const MISSED_RUNS: u32 = 100;
/// Schedules of one function, those of its `davit.toml` included.
pub const SCHEDULES: u32 = 1_000;
/// Event sources of one namespace: gateways hold all of them in memory.
pub const SOURCES: u32 = 200;
/// Events of a source that are fetched and accepted at a time.
pub const SOURCE_BATCH: std::ops::RangeInclusive<u32> = 1..=1_000;
/// How long a source's batch that is not full may wait for more, in milliseconds.
pub const SOURCE_BATCH_WAIT_MS: std::ops::RangeInclusive<u32> = 0..=60_000;
/// Calls of a function that have not ended, at which its sources stop fetching.
pub const SOURCE_BACKLOG: std::ops::RangeInclusive<u32> = 1..=100_000;
/// Columns that a source of table changes may name.
pub const SOURCE_COLUMNS: usize = 200;
/// How far a sender's signed time may lie from the gateway's, in seconds.
pub const TOLERANCE_SECONDS: std::ops::RangeInclusive<u32> = 1..=3_600;
/// Longest id of a delivery that a sender may give, in characters. Of longer ones the digest is taken.
pub const DELIVERY_ID_CHARS: usize = 128;
/// A source archive as uploaded (compressed), in bytes.
pub const SOURCE_BYTES: usize = 64 * 1024 * 1024;
/// Layers of a version, as at AWS.
pub const LAYERS: usize = 5;
/// A source archive or bundle unpacked, in bytes: as at AWS.
pub const UNPACKED_BYTES: u64 = 262_144_000;
/// Size of the memory file system that code is unpacked into, in MiB: the largest bundle, and folders.
pub const TASK_MB: u32 = (UNPACKED_BYTES / (1024 * 1024)) as u32 + 16;
/// Entries of an archive.
pub const ARCHIVE_ENTRIES: usize = 100_000;
/// An event of a topic in its JSON form, in bytes.
pub const EVENT_BYTES: usize = 256 * 1024;
/// Events in one publication, which together are at most [`ASYNC_PAYLOAD_BYTES`].
pub const EVENTS: usize = 100;
/// Topics of a namespace.
pub const TOPICS: usize = 1_000;
/// Subscriptions of a topic, and of a function. With [`EVENT_BYTES`] it bounds what one event becomes.
pub const SUBSCRIPTIONS: usize = 100;
/// Versions that one alias leads to.
pub const ALIAS_VERSIONS: usize = 10;
/// Aliases of one function.
pub const ALIASES: usize = 50;
/// Projects of a namespace.
pub const PROJECTS: usize = 500;
/// What one project looks after.
pub const PROJECT_OBJECTS: usize = 2_000;
/// Length of a version's or an alias's description, in characters.
pub const DESCRIPTION_CHARS: usize = 500;
/// Steps of a canary.
pub const CANARY_STEPS: usize = 20;
/// How long a step of a canary lasts at least, in seconds.
pub const CANARY_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;
/// Ready versions of a function that are kept whatever their age.
pub const KEEP_VERSIONS: std::ops::RangeInclusive<u32> = 1..=1_000;
/// Days for which all of them are kept.
pub const KEEP_DAYS: std::ops::RangeInclusive<u32> = 0..=3_650;
/// Longest chain of functions that cause each other, by calls, publications and destinations: what runs in a circle
/// must not do so for ever.
pub const HOPS: u8 = 8;
/// Entries of the list of a function's callers.
pub const CALLERS: usize = 100;
/// Routes of one function, those of its OpenAPI document included.
pub const ROUTES: usize = 256;
/// An OpenAPI document as it is written, in bytes.
pub const OPENAPI_FILE_BYTES: usize = 1024 * 1024;
/// What of it a version carries, in bytes of JSON: its operations, and what they refer to.
pub const OPENAPI_BYTES: usize = 512 * 1024;
/// Levels of objects and arrays in each other in an OpenAPI document.
pub const OPENAPI_DEPTH: usize = 100;
/// Length of a handler setting, in characters.
pub const HANDLER_CHARS: usize = 128;
/// Length of a Dockerfile's path within its folder, in characters.
pub const DOCKERFILE_CHARS: usize = 255;
/// Length of a secret's value, in bytes.
pub const SECRET_BYTES: usize = 64 * 1024;
/// Secrets of a version that appear as files. With [`SECRET_BYTES`] each they take at most 1 MiB of an instance's memory, whatever
/// a secret is set to later.
pub const SECRET_FILES: usize = 16;
