-- Rules that a check cannot express, and the wake-up calls.

set local lock_timeout = '5s';

-- A rule's violation looks like a constraint's, so that one place in the code reads both.
create function davit_refuse(rule text, message text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'check_violation', constraint = rule, message = message;
end $$;

-- A version never changes once it is ready.
create function versions_immutable() returns trigger language plpgsql as $$
begin
    perform davit_refuse('versions_immutable', 'a ready version never changes');
    return new;
end $$;
create trigger versions_immutable before update on versions for each row
    when (old.state = 'ready' and old is distinct from new) execute function versions_immutable();

-- What was handed in never changes at all; only what the build finds out is added.
create function versions_input_fixed() returns trigger language plpgsql as $$
begin
    perform davit_refuse('versions_input_fixed', 'what a version was made from never changes');
    return new;
end $$;
create trigger versions_input_fixed before update on versions for each row
    when ((old.function_id, old.number, old.spec, old.schedules, old.source)
        is distinct from (new.function_id, new.number, new.spec, new.schedules, new.source))
    execute function versions_input_fixed();

-- An alias points to ready versions only. Ready is for ever, so looking once is enough.
create function aliases_version_ready() returns trigger language plpgsql as $$
begin
    if not exists (select from versions where id = new.version_id and state = 'ready') then
        perform davit_refuse('aliases_version_ready', 'an alias points to a ready version');
    end if;
    return new;
end $$;
create trigger aliases_version_ready before insert or update on aliases for each row
    execute function aliases_version_ready();

-- An instance serves one version in its life, and only moves forward.
create function instances_rules() returns trigger language plpgsql as $$
declare
    ranks constant text[] := array['starting', 'pooled', 'active', 'released', 'removed'];
begin
    if old.version_id is not null and new.version_id is distinct from old.version_id then
        perform davit_refuse('instances_version_once', 'an instance serves one version');
    end if;
    if array_position(ranks, replace(new.state, 'frozen', 'active'))
        < array_position(ranks, replace(old.state, 'frozen', 'active')) then
        perform davit_refuse('instances_forward', 'an instance never goes back');
    end if;
    return new;
end $$;
create trigger instances_rules before update on instances for each row execute function instances_rules();

-- An invocation has one completion.
create function invocations_final() returns trigger language plpgsql as $$
begin
    perform davit_refuse('invocations_final', 'a finished invocation never changes');
    return new;
end $$;
create trigger invocations_final before update on invocations for each row
    when (old.ended_at is not null) execute function invocations_final();

-- The audit log is append-only.
create function audit_append_only() returns trigger language plpgsql as $$
begin
    perform davit_refuse('audit_append_only', 'the audit log is append-only');
    return old;
end $$;
create trigger audit_append_only before update or delete on audit for each row execute function audit_append_only();

-- Wake-up calls: that something changed, never what. One a statement; Postgres folds equal ones of a
-- transaction. The queue has none: a call a job would serialise commits.
create function davit_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('davit', tg_argv[0]);
    return null;
end $$;
create trigger changed after insert or update or delete on aliases for each statement execute function davit_changed('routes');
create trigger changed after insert or update or delete on routes for each statement execute function davit_changed('routes');
create trigger changed after update of deleted_at or delete on functions for each statement execute function davit_changed('routes');
create trigger changed after insert or update or delete on secrets for each statement execute function davit_changed('routes');
create trigger tokens_made after insert or delete on tokens for each statement execute function davit_changed('routes');
create trigger tokens_changed after update of expires_at, revoked_at on tokens for each statement execute function davit_changed('routes');
create trigger changed after insert or update or delete on instances for each statement execute function davit_changed('instances');
-- A heartbeat is an update and no news.
create trigger changed after insert or delete on gateways for each statement execute function davit_changed('instances');
-- A row at a time: a builder that looks for work and finds none has changed nothing, and must not wake itself.
create trigger changed after insert or update or delete on versions for each row execute function davit_changed('builds');
create trigger changed after insert or update or delete on schedules for each statement execute function davit_changed('schedules');
create trigger changed after insert or update or delete on demand for each statement execute function davit_changed('demand');
