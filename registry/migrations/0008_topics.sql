-- Topics: what is published is kept by days, and each delivery is an invocation of the queue, made in the same transaction.

set local lock_timeout = '5s';

create table topics (
    id uuid primary key,
    namespace_id uuid not null,
    name text not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint topics_namespace foreign key (namespace_id) references namespaces (id),
    constraint topics_name_taken unique (namespace_id, name),
    constraint topics_name_shape check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')
);

create table subscriptions (
    id uuid primary key,
    topic_id uuid not null,
    name text not null,
    -- Exactly one of the two: a function that is called, or an address that is sent to.
    function_id uuid,
    webhook jsonb,
    settings jsonb not null,
    from_manifest boolean not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint subscriptions_topic foreign key (topic_id) references topics (id) on delete cascade,
    constraint subscriptions_function foreign key (function_id) references functions (id),
    constraint subscriptions_name_taken unique (topic_id, name),
    constraint subscriptions_name_shape check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    constraint subscriptions_target check ((function_id is null) = (webhook is not null))
);
create index subscriptions_by_function on subscriptions (function_id);

-- A partition a day, as ended invocations have. Without a reference to its topic: what was published to one that is
-- gone is reached by nobody, and goes with its day.
create table messages (
    id uuid not null,
    topic_id uuid not null,
    -- The CloudEvent in its JSON form.
    event bytea not null,
    published_at timestamptz not null default clock_timestamp(),
    constraint messages_event_size check (octet_length(event) <= 262144)
) partition by range (published_at);
-- For days that nobody has made a partition for yet.
create table messages_rest partition of messages default;
create index messages_in_order on messages (topic_id, published_at, id);

-- What was published within a day, by the digest of its source and id, so that publishing twice is publishing once.
-- Those of a topic that is gone go with their age, too.
create table message_keys (
    topic_id uuid not null,
    key bytea not null,
    message_id uuid not null,
    published_at timestamptz not null default clock_timestamp(),
    primary key (topic_id, key),
    constraint message_keys_length check (octet_length(key) = 32)
);
create index message_keys_by_age on message_keys (published_at);

-- Which subscription an invocation delivers to. Not a reference: what was accepted is delivered when that is gone, too.
alter table invocations add column subscription_id uuid;
alter table ended_invocations add column subscription_id uuid;
create index invocations_by_subscription on invocations (subscription_id) where subscription_id is not null;
create index ended_invocations_dead_by_subscription on ended_invocations (subscription_id)
    where state = 'dead' and redriven_as is null and subscription_id is not null;
