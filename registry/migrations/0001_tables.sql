-- Every table of davit. Rules that must never break are constraints with names; the code turns a name into
-- an answer for the caller (registry/src/error.rs).

set local lock_timeout = '5s';

create table installation (
    id uuid primary key,
    only_row boolean not null default true,
    created_at timestamptz not null default clock_timestamp(),
    constraint installation_one_row unique (only_row),
    constraint installation_only_true check (only_row)
);
insert into installation (id) values (gen_random_uuid());

create table namespaces (
    id uuid primary key,
    name text not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint namespaces_name_taken unique (name),
    constraint namespaces_name_shape check (
        name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' and name not in ('v1', 'healthz') and name not like 'davit%')
);

create table functions (
    id uuid primary key,
    namespace_id uuid not null,
    name text not null,
    last_number integer not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    constraint functions_namespace foreign key (namespace_id) references namespaces (id),
    constraint functions_in_namespace unique (id, namespace_id),
    constraint functions_name_shape check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')
);
create unique index functions_name_taken on functions (namespace_id, name) where deleted_at is null;

-- Content. Chunks are written one by one, outside any long transaction; an artifact exists from the moment
-- its row names a finished upload, so half an upload is never visible.
create table artifact_uploads (
    id uuid primary key,
    started_at timestamptz not null default clock_timestamp()
);
create table artifact_chunks (
    upload_id uuid not null,
    seq integer not null,
    data bytea not null,
    primary key (upload_id, seq),
    constraint artifact_chunks_upload foreign key (upload_id) references artifact_uploads (id) on delete cascade,
    constraint artifact_chunks_size check (octet_length(data) <= 1048576)
);
alter table artifact_chunks alter column data set storage external;
create table artifacts (
    digest bytea primary key,
    size bigint not null,
    upload_id uuid not null,
    touched_at timestamptz not null default clock_timestamp(),
    constraint artifacts_upload foreign key (upload_id) references artifact_uploads (id),
    constraint artifacts_upload_once unique (upload_id),
    constraint artifacts_digest_length check (octet_length(digest) = 32)
);
create table dep_cache (
    key text primary key,
    digest bytea not null,
    used_at timestamptz not null default clock_timestamp(),
    constraint dep_cache_artifact foreign key (digest) references artifacts (digest)
);

create table versions (
    id uuid primary key,
    function_id uuid not null,
    number integer not null,
    state text not null default 'queued',
    spec jsonb not null,
    schedules jsonb not null,
    source bytea not null,
    bundle bytea,
    bundle_size bigint,
    image_digest text,
    git_commit text,
    error text,
    created_at timestamptz not null default clock_timestamp(),
    ready_at timestamptz,
    builder uuid,
    build_lease_until timestamptz,
    constraint versions_function foreign key (function_id) references functions (id),
    constraint versions_of_function unique (id, function_id),
    constraint versions_number_taken unique (function_id, number),
    constraint versions_number_positive check (number > 0),
    constraint versions_state check (state in ('queued', 'building', 'starting', 'ready', 'failed')),
    constraint versions_source_uploaded foreign key (source) references artifacts (digest),
    constraint versions_bundle_stored foreign key (bundle) references artifacts (digest),
    constraint versions_ready_has_bundle check (state <> 'ready' or (bundle is not null and ready_at is not null)),
    constraint versions_commit_shape check (git_commit is null or length(git_commit) <= 200)
);
create index versions_to_build on versions (created_at) where state in ('queued', 'building', 'starting');
create index versions_source on versions (source);
create index versions_bundle on versions (bundle);

create table aliases (
    function_id uuid not null,
    name text not null,
    version_id uuid not null,
    moved_at timestamptz not null default clock_timestamp(),
    primary key (function_id, name),
    constraint aliases_name_shape check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    constraint aliases_version_of_function foreign key (version_id, function_id) references versions (id, function_id)
);

-- Routes in force: those of live versions. '' stands for "every host".
create table routes (
    function_id uuid not null,
    host text not null,
    method text not null,
    path text not null,
    shape text not null,
    constraint routes_function foreign key (function_id) references functions (id),
    constraint routes_taken unique (host, method, shape),
    constraint routes_method check (method in ('ANY', 'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS')),
    constraint routes_host_shape check (host = '' or host ~ '^(\*\.)?[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?$'),
    constraint routes_path_shape check (
        path ~ '^/' and length(path) <= 512 and path !~ '[^A-Za-z0-9._~{}+/-]' and path !~ '//'
        and path !~ '(^|/)\.\.?(/|$)' and path !~ '^/(v1|healthz)(/|$)')
);
create index routes_by_function on routes (function_id);

create table schedules (
    id uuid primary key,
    function_id uuid not null,
    name text not null,
    spec jsonb not null,
    enabled boolean not null,
    from_manifest boolean not null,
    next_due_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    constraint schedules_function foreign key (function_id) references functions (id),
    constraint schedules_name_taken unique (function_id, name),
    constraint schedules_name_shape check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')
);

create table invocations (
    id uuid primary key,
    namespace_id uuid not null,
    function_id uuid not null,
    source text not null,
    state text not null default 'queued',
    payload bytea not null,
    policy jsonb not null,
    accepted_at timestamptz not null default clock_timestamp(),
    run_at timestamptz not null,
    attempt integer not null default 0,
    gateway_id uuid,
    lease_until timestamptz,
    result bytea,
    error jsonb,
    ended_at timestamptz,
    constraint invocations_function foreign key (function_id, namespace_id) references functions (id, namespace_id),
    constraint invocations_state check (state in ('queued', 'running', 'succeeded', 'dead')),
    constraint invocations_source check (source in ('http', 'invoke', 'async', 'schedule')),
    constraint invocations_running_is_leased check (
        (state = 'running') = (lease_until is not null and gateway_id is not null)),
    constraint invocations_ended_once check ((state in ('succeeded', 'dead')) = (ended_at is not null)),
    constraint invocations_payload_size check (octet_length(payload) <= 1048576)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
create index invocations_due on invocations (namespace_id, run_at) where state = 'queued';
create index invocations_leased on invocations (lease_until) where state = 'running';
create index invocations_by_function on invocations (function_id, accepted_at);
create index invocations_ended on invocations (ended_at) where ended_at is not null;

create table fires (
    schedule_id uuid not null,
    due_at timestamptz not null,
    outcome text not null,
    invocation_id uuid,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint fires_once primary key (schedule_id, due_at),
    constraint fires_schedule foreign key (schedule_id) references schedules (id) on delete cascade,
    constraint fires_outcome check (outcome in ('fired', 'missed')),
    constraint fires_fired_has_invocation check ((outcome = 'fired') = (invocation_id is not null))
);

create table gateways (
    id uuid primary key,
    public_url text not null,
    started_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp()
);

create table instances (
    id uuid primary key,
    gateway_id uuid not null,
    image text not null,
    memory_mb integer not null,
    cpu_millis integer not null,
    ephemeral_mb integer not null,
    network text not null,
    image_digest text not null,
    state text not null default 'starting',
    version_id uuid,
    config_digest bytea,
    calls bigint not null default 0,
    errors bigint not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null default clock_timestamp(),
    removed_reason text,
    constraint instances_state check (state in ('starting', 'pooled', 'active', 'frozen', 'released', 'removed')),
    constraint instances_network check (network in ('egress', 'none')),
    constraint instances_version foreign key (version_id) references versions (id),
    constraint instances_working_has_version check (state not in ('active', 'frozen') or version_id is not null)
) with (fillfactor = 70);
create index instances_present on instances (gateway_id) where state <> 'removed';
create index instances_by_version on instances (version_id) where state in ('active', 'frozen');

create table demand (
    gateway_id uuid not null,
    image text not null,
    memory_mb integer not null,
    cpu_millis integer not null,
    ephemeral_mb integer not null,
    network text not null,
    waiting integer not null,
    claims_recent integer not null,
    updated_at timestamptz not null default clock_timestamp(),
    primary key (gateway_id, image, memory_mb, cpu_millis, ephemeral_mb, network),
    constraint demand_gateway foreign key (gateway_id) references gateways (id) on delete cascade
);

create table leases (
    name text primary key,
    holder uuid not null,
    fence bigint not null,
    expires_at timestamptz not null
);

create table secrets (
    namespace_id uuid not null,
    name text not null,
    nonce bytea not null,
    sealed bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    primary key (namespace_id, name),
    constraint secrets_namespace foreign key (namespace_id) references namespaces (id),
    constraint secrets_name_shape check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    constraint secrets_nonce_length check (octet_length(nonce) = 24),
    constraint secrets_size check (octet_length(sealed) <= 65536 + 16)
);

create table tokens (
    id uuid primary key,
    namespace_id uuid,
    description text not null,
    role text not null,
    prefix text not null,
    hash bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    constraint tokens_namespace foreign key (namespace_id) references namespaces (id),
    constraint tokens_hash_taken unique (hash),
    constraint tokens_hash_length check (octet_length(hash) = 32),
    constraint tokens_role check (role in ('read', 'invoke', 'deploy', 'admin')),
    constraint tokens_description_length check (length(description) between 1 and 100)
);

create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    request_id uuid,
    token_id uuid,
    actor text not null,
    namespace text,
    action text not null,
    object text not null,
    outcome text not null
);

create table usage (
    function_id uuid primary key,
    calls bigint not null default 0,
    errors bigint not null default 0,
    cold_starts bigint not null default 0,
    last_call_at timestamptz,
    last_cold_ms double precision,
    constraint usage_function foreign key (function_id) references functions (id)
) with (fillfactor = 70);

create table logs (
    id bigint generated always as identity primary key,
    function_id uuid not null,
    version integer not null,
    invocation_id uuid,
    stream text not null,
    at timestamptz not null,
    line text not null,
    constraint logs_stream check (stream in ('stdout', 'stderr', 'platform')),
    constraint logs_line_length check (octet_length(line) <= 262144)
);
create index logs_by_function on logs (function_id, id);
create index logs_by_age on logs (at);

create table build_logs (
    id bigint generated always as identity primary key,
    version_id uuid not null,
    at timestamptz not null default clock_timestamp(),
    state text,
    line text not null,
    constraint build_logs_version foreign key (version_id) references versions (id) on delete cascade
);
create index build_logs_by_version on build_logs (version_id, id);
