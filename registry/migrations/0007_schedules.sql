-- Schedules with more settings, that end, and that are rung by the hundred.

set local lock_timeout = '5s';

-- Counts edits: what a gateway decided is carried out only while the schedule is the one it read. `ended`: no instant is
-- left, so nobody looks at it again until it is edited.
alter table schedules add column revision bigint not null default 0;
alter table schedules add column ended boolean not null default false;
-- From when on instants are due while the next one is not computed: when it was made, edited or resumed.
alter table schedules add column due_from timestamptz;
create index schedules_due on schedules (next_due_at) where enabled and not ended;

-- When it was to ring, where jitter makes that another moment; and why an instant was skipped.
alter table fires add column planned_at timestamptz;
alter table fires add column reason text;
alter table fires drop constraint fires_outcome;
alter table fires add constraint fires_outcome check (outcome in ('fired', 'missed', 'skipped')) not valid;
alter table fires add constraint fires_skipped_has_reason check ((outcome = 'skipped') = (reason is not null)) not valid;
create index fires_by_age on fires (recorded_at);

-- Moving on to the next instant is what gateways do all the time, and news for nobody: a notification in each of those
-- transactions would make their commits wait for each other, and wake every gateway to read what it knows.
drop trigger changed on schedules;
create trigger made after insert or delete on schedules for each statement execute function davit_changed('schedules');
create trigger edited after update of spec, enabled, revision on schedules
    for each statement execute function davit_changed('schedules');
