-- The queue in two tables: `invocations` holds what is still to be done and stays small, whatever has been done;
-- `ended_invocations` holds what has ended, a partition a day, so that old days are dropped and nothing is deleted row
-- by row. Ending is a move from one to the other in one transaction: a row that is gone cannot end twice.

set local lock_timeout = '5s';

create table ended_invocations (
    id uuid not null,
    namespace_id uuid not null,
    function_id uuid,
    webhook jsonb,
    source text not null,
    state text not null,
    payload bytea not null,
    policy jsonb not null,
    destinations jsonb,
    priority smallint not null,
    ordering_key text,
    accepted_at timestamptz not null,
    attempt integer not null,
    result bytea,
    error jsonb,
    replay_of uuid,
    hops smallint not null default 0,
    -- Where its result or failure was sent on to, and what came of handing it there.
    sent_on jsonb,
    -- The invocation that a dead one was made again as.
    redriven_as uuid,
    ended_at timestamptz not null default clock_timestamp(),
    constraint ended_invocations_state check (state in ('succeeded', 'dead', 'cancelled'))
) partition by range (ended_at);
-- For days that nobody has made a partition for yet.
create table ended_invocations_rest partition of ended_invocations default;
create index ended_invocations_by_id on ended_invocations (id);
create index ended_invocations_by_function on ended_invocations (function_id, accepted_at);
create index ended_invocations_dead on ended_invocations (namespace_id, ended_at) where state = 'dead';

insert into ended_invocations (id, namespace_id, function_id, source, state, payload, policy, priority, accepted_at,
    attempt, result, error, ended_at)
select id, namespace_id, function_id, source, state, payload, policy, 1, accepted_at, attempt, result, error, ended_at
from invocations where ended_at is not null;
delete from invocations where ended_at is not null;

-- What has ended only ever learns, once, that it was made again.
create trigger invocations_final before update on ended_invocations for each row
    when (old.redriven_as is not null or new.redriven_as is null
        or (old.id, old.state, old.attempt, old.ended_at, old.payload, old.result, old.error)
            is distinct from (new.id, new.state, new.attempt, new.ended_at, new.payload, new.result, new.error))
    execute function invocations_final();

drop trigger invocations_final on invocations;
drop index invocations_due, invocations_ended;
alter table invocations
    drop constraint invocations_ended_once,
    drop constraint invocations_state,
    drop constraint invocations_source,
    drop column ended_at,
    drop column result,
    alter column function_id drop not null,
    -- Exactly one of the two: a function that is called, or an address that is sent to.
    add column webhook jsonb,
    add column destinations jsonb,
    -- The order of acceptance, which within an ordering key is the order of commits, too.
    add column position bigint generated always as identity,
    -- From when its age counts: the instant from which it was to run.
    add column due_at timestamptz not null default clock_timestamp(),
    add column priority smallint not null default 1,
    add column ordering_key text,
    -- False while an earlier one of the same function and ordering key has not ended.
    add column in_turn boolean not null default true,
    add column cancel_requested boolean not null default false,
    -- Attempts that found no place to run: they are told apart like all others, but do not count against the promise.
    add column excused integer not null default 0,
    add column replay_of uuid,
    -- How many outcomes were sent on from one to the next until this one.
    add column hops smallint not null default 0,
    add constraint invocations_state check (state in ('queued', 'running')),
    add constraint invocations_source check (source in ('http', 'invoke', 'async', 'schedule', 'topic', 'destination')),
    add constraint invocations_target check ((function_id is null) = (webhook is not null)),
    add constraint invocations_namespace foreign key (namespace_id) references namespaces (id),
    add constraint invocations_priority check (priority between 0 and 2),
    add constraint invocations_ordering_key check (length(ordering_key) between 1 and 128),
    add constraint invocations_excused check (excused between 0 and attempt),
    add constraint invocations_runs_in_turn check (state = 'queued' or in_turn),
    -- Every row is updated once and deleted: what that leaves behind is to be swept away all the time.
    set (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2);
create index invocations_due on invocations (namespace_id, priority, run_at) where state = 'queued' and in_turn;
create index invocations_in_order on invocations (function_id, ordering_key, position) where ordering_key is not null;
create index invocations_to_cancel on invocations (gateway_id) where cancel_requested;

-- What a client called an invocation, so that asking twice is asking once.
create table idempotency_keys (
    function_id uuid not null,
    key text not null,
    invocation_id uuid not null,
    -- Of the payload: the same key for something else is a mistake.
    digest bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (function_id, key),
    constraint idempotency_keys_function foreign key (function_id) references functions (id),
    constraint idempotency_keys_shape check (length(key) between 1 and 256)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);
