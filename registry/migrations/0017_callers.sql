-- Functions that call functions: one more door, and who came through it.

set local lock_timeout = '5s';

alter table invocations add column caller jsonb;
alter table ended_invocations add column caller jsonb;

-- The table is small at all times, so that looking at its rows again takes no time.
alter table invocations drop constraint invocations_source;
alter table invocations add constraint invocations_source check (
    source in ('http', 'invoke', 'async', 'schedule', 'topic', 'destination', 'event_source', 'function'));
