-- Calls that found no place to run are looked for by function when one of its places becomes free.

set local lock_timeout = '5s';

create index invocations_without_place on invocations (function_id, run_at) where excused > 0 and state = 'queued';
