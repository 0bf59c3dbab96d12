-- Event sources: where events from outside come from, and which function gets them.

set local lock_timeout = '5s';

create table sources (
    id uuid primary key,
    namespace_id uuid not null,
    function_id uuid not null,
    name text not null,
    spec jsonb not null,
    paused boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    constraint sources_namespace foreign key (namespace_id) references namespaces (id),
    constraint sources_function foreign key (function_id, namespace_id) references functions (id, namespace_id),
    constraint sources_name_taken unique (namespace_id, name),
    constraint sources_name_shape check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    constraint sources_kind check (spec ->> 'kind' is not null),
    -- Whoever leaves the check of a webhook's sender out has to say so.
    constraint sources_verified check (
        spec ->> 'kind' <> 'webhook' or (spec ->> 'verify' is not null and (spec ->> 'verify' = 'none' or spec ? 'secret')))
);
create index sources_by_function on sources (function_id);

-- Gateways hold them beside the tokens; which functions are live is not touched by them.
create trigger changed after insert or update or delete on sources
    for each statement execute function davit_changed('routes');
create trigger noted after insert or update or delete on sources
    for each statement execute function davit_routes_changed('sources');

-- One more door. The table is small at all times, so that looking at its rows again takes no time.
alter table invocations drop constraint invocations_source;
alter table invocations add constraint invocations_source check (
    source in ('http', 'invoke', 'async', 'schedule', 'topic', 'destination', 'event_source'));
