-- An instance that waits may get another size in place, so that none has to be started. Its gateway writes the wish and holds the
-- instance back until the wish is gone again; the controller has the engine do it, and then gives the row its new size.

set local lock_timeout = '5s';

alter table instances
    -- Whether its size can be changed. It is tried once at most.
    add column resizable boolean not null default false,
    -- What is wished for; both or neither.
    add column wish_memory_mb integer,
    add column wish_cpu_millis integer,
    add column wished_at timestamptz,
    -- The last attempt that was begun. From then on the container may have either size.
    add column resize_attempt uuid;
