-- What changed about routes, so that a gateway which has read everything once need only read what came after.
--
-- One row a change, with the transaction that made it. Nobody updates a row here: a counter would make all
-- transactions that change routes wait for each other, and a number from a sequence can become visible after a
-- higher one, so that a reader would pass it over. A transaction's id against the reader's own snapshot cannot.

set local lock_timeout = '5s';

create table route_changes (
    xid xid8 not null default pg_current_xact_id(),
    at timestamptz not null default clock_timestamp(),
    function_id uuid,
    namespace_id uuid
);
-- Both ids are null when only tokens changed.
create index route_changes_by_xid on route_changes (xid);
create index route_changes_by_age on route_changes (at);

create function davit_routes_changed() returns trigger language plpgsql as $$
begin
    case tg_argv[0]
        when 'aliases' then insert into route_changes (function_id) select distinct function_id from changed;
        -- Each deployment counts its function's versions up, which concerns no route.
        when 'functions' then insert into route_changes (function_id)
            select id from changed join was using (id) where changed.deleted_at is distinct from was.deleted_at;
        when 'secrets' then insert into route_changes (namespace_id) select distinct namespace_id from changed;
        else insert into route_changes default values;
    end case;
    return null;
end $$;

-- A trigger that looks at the rows of a statement takes one kind of statement.
create trigger noted_insert after insert on aliases referencing new table as changed
    for each statement execute function davit_routes_changed('aliases');
create trigger noted_update after update on aliases referencing new table as changed
    for each statement execute function davit_routes_changed('aliases');
create trigger noted_delete after delete on aliases referencing old table as changed
    for each statement execute function davit_routes_changed('aliases');
create trigger noted_update after update on functions referencing old table as was new table as changed
    for each statement execute function davit_routes_changed('functions');
create trigger noted_insert after insert on secrets referencing new table as changed
    for each statement execute function davit_routes_changed('secrets');
create trigger noted_update after update on secrets referencing new table as changed
    for each statement execute function davit_routes_changed('secrets');
create trigger noted_delete after delete on secrets referencing old table as changed
    for each statement execute function davit_routes_changed('secrets');
create trigger noted after insert or delete on tokens for each statement execute function davit_routes_changed('tokens');
create trigger noted_update after update of expires_at, revoked_at on tokens
    for each statement execute function davit_routes_changed('tokens');
