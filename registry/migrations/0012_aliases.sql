-- Aliases that lead to several versions, canaries that shift them by themselves, and how long versions are kept.

set local lock_timeout = '5s';

alter table versions
    add column description text,
    -- What is to happen when it is ready; null stands for: it goes live.
    add column rollout jsonb,
    add constraint versions_description_length check (length(description) between 1 and 500) not valid;

alter table aliases
    add column description text,
    -- The header or cookie whose value decides; null: chance does.
    add column sticky text,
    -- Whether its own address is as open as its version says; otherwise a token is needed.
    add column public boolean not null default false,
    add constraint aliases_description_length check (length(description) between 1 and 500) not valid;

-- What an alias gives to each of several versions. An alias without rows here gives everything to its `version_id`,
-- which is also the version whose routes, schedules and subscriptions are in force.
create table alias_shares (
    function_id uuid not null,
    alias text not null,
    version_id uuid not null,
    weight smallint not null,
    primary key (function_id, alias, version_id),
    constraint alias_shares_alias foreign key (function_id, alias) references aliases (function_id, name) on delete cascade,
    constraint alias_shares_version_of_function foreign key (version_id, function_id) references versions (id, function_id),
    constraint alias_shares_weight check (weight between 1 and 100)
);
create index alias_shares_by_version on alias_shares (version_id);
create index aliases_by_version on aliases (version_id);

create trigger alias_shares_version_ready before insert or update on alias_shares for each row
    execute function aliases_version_ready();

-- Looked at when the transaction ends: in between, rows come one after the other.
create function alias_shares_sum() returns trigger language plpgsql as $$
declare
    f uuid := coalesce(new.function_id, old.function_id);
    n text := coalesce(new.alias, old.alias);
    total bigint;
begin
    select sum(weight) into total from alias_shares where function_id = f and alias = n;
    if total is not null and total <> 100 then
        perform davit_refuse('alias_shares_sum', 'the weights of an alias are 100 together');
    end if;
    if total is not null and not exists (select from aliases a join alias_shares s
            on s.function_id = a.function_id and s.alias = a.name and s.version_id = a.version_id
            where a.function_id = f and a.name = n) then
        perform davit_refuse('alias_shares_first', 'an alias gives its first version a share');
    end if;
    return null;
end $$;
create constraint trigger alias_shares_sum after insert or update or delete on alias_shares
    deferrable initially deferred for each row execute function alias_shares_sum();

-- Whoever points an alias to another version means all of its calls. An older davit says no more than that.
create function aliases_moved() returns trigger language plpgsql as $$
begin
    delete from alias_shares where function_id = new.function_id and alias = new.name;
    return null;
end $$;
create trigger aliases_moved after update on aliases for each row
    when (old.version_id is distinct from new.version_id) execute function aliases_moved();

create view alias_versions as
    select function_id, alias, version_id, weight from alias_shares
    union all
    select a.function_id, a.name, a.version_id, 100::smallint from aliases a
    where not exists (select from alias_shares s where s.function_id = a.function_id and s.alias = a.name);

create trigger changed after insert or update or delete on alias_shares for each statement execute function davit_changed('routes');
create trigger noted_insert after insert on alias_shares referencing new table as changed
    for each statement execute function davit_routes_changed('aliases');
create trigger noted_update after update on alias_shares referencing new table as changed
    for each statement execute function davit_routes_changed('aliases');
create trigger noted_delete after delete on alias_shares referencing old table as changed
    for each statement execute function davit_routes_changed('aliases');

-- A shift of `live` from one version to another, in steps, judged by what gateways count meanwhile.
create table canaries (
    id uuid primary key,
    function_id uuid not null,
    version_id uuid not null,
    base_id uuid not null,
    spec jsonb not null,
    -- Which of the spec's steps is in force, from 0.
    step integer not null default 0,
    step_at timestamptz not null default clock_timestamp(),
    state text not null default 'running',
    reason text,
    -- What had been counted in the last step when it ended.
    figures jsonb,
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    constraint canaries_function foreign key (function_id) references functions (id),
    constraint canaries_version foreign key (version_id, function_id) references versions (id, function_id) on delete cascade,
    constraint canaries_base foreign key (base_id, function_id) references versions (id, function_id) on delete cascade,
    constraint canaries_two check (version_id <> base_id),
    constraint canaries_state check (state in ('running', 'promoted', 'rolled_back', 'aborted')),
    constraint canaries_ended_once check ((state = 'running') = (ended_at is null))
);
create unique index canaries_one_at_a_time on canaries (function_id) where state = 'running';
create index canaries_by_function on canaries (function_id, started_at);
create index canaries_by_version on canaries (version_id);
create index canaries_by_base on canaries (base_id);

-- An ended one stays as it ended.
create function canaries_final() returns trigger language plpgsql as $$
begin
    perform davit_refuse('canaries_final', 'a canary that has ended never changes');
    return new;
end $$;
create trigger canaries_final before update on canaries for each row
    when (old.state <> 'running') execute function canaries_final();

-- What gateways counted of both versions in each step, added up.
create table canary_counts (
    canary_id uuid not null,
    step integer not null,
    version_id uuid not null,
    calls bigint not null,
    errors bigint not null,
    platform_errors bigint not null,
    -- Calls by how long they ran: the buckets of api/src/latency.rs.
    latency bigint[] not null,
    primary key (canary_id, step, version_id),
    constraint canary_counts_canary foreign key (canary_id) references canaries (id) on delete cascade
) with (fillfactor = 50);

-- How many ready versions are kept, and for how many days at least; null asks the next one: the function, its
-- namespace, the installation.
alter table functions add column keep_versions integer, add column keep_days integer,
    add constraint functions_keep check (keep_versions between 1 and 1000 and keep_days between 0 and 3650) not valid;
alter table namespaces add column keep_versions integer, add column keep_days integer,
    add constraint namespaces_keep check (keep_versions between 1 and 1000 and keep_days between 0 and 3650) not valid;

-- The version or alias that an invocation asked for by name; null: whatever is live when it runs.
alter table invocations add column qualifier text;
alter table ended_invocations add column qualifier text;
create index invocations_qualified on invocations (function_id, qualifier) where qualifier is not null;
