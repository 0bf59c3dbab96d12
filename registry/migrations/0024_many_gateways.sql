-- Gateways share what a function may use, and pass calls on to each other. Each says in its row what the others must know;
-- an older davit's rows say nothing (`adopted` is null) and are left out of it.

set local lock_timeout = '5s';

create sequence gateway_joins;

alter table gateways
    -- The number of its joining: new for each row, so that what others said of an earlier one does not count.
    add column joined bigint not null default nextval('gateway_joins'),
    -- The joinings that it has taken into account.
    add column adopted bigint[],
    -- Instances that it holds beyond its share, by version.
    add column over jsonb not null default '{}',
    -- Where other gateways reach it.
    add column address text,
    -- It ends, and takes no more calls.
    add column leaving boolean not null default false;

alter sequence gateway_joins owned by gateways.joined;
