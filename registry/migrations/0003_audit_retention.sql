-- Audit entries have an age at which they may go. Everything else about the log stays append-only: an entry is
-- never changed, and none is removed but by a transaction that says how many days are kept, and is older.

set local lock_timeout = '5s';

create or replace function audit_append_only() returns trigger language plpgsql as $$
declare
    days constant integer := nullif(current_setting('davit.audit_days', true), '')::integer;
begin
    if tg_op = 'DELETE' and days >= 1 and old.at < clock_timestamp() - make_interval(days => days) then
        return old;
    end if;
    perform davit_refuse('audit_append_only', 'the audit log is append-only');
    return old;
end $$;

create index audit_by_age on audit (at);
