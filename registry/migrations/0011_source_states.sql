-- Sources whose events a gateway fetches: who does, what it delivered last, and how it is getting on. Apart from the
-- sources themselves, whose changes every gateway hears of.

set local lock_timeout = '5s';

create table source_states (
    source_id uuid primary key,
    -- The gateway that fetches; it counts for as long as the gateway's own lease does.
    holder uuid,
    -- Larger with each new holding: what an earlier one still delivers is refused.
    fence bigint not null default 0,
    -- Positions that were delivered together and may not have been acknowledged.
    pending text[] not null default '{}',
    state text not null default 'active',
    delivered bigint not null default 0,
    last_event_at timestamptz,
    lag_seconds float8,
    last_error text,
    last_error_at timestamptz,
    constraint source_states_source foreign key (source_id) references sources (id) on delete cascade,
    constraint source_states_holder foreign key (holder) references gateways (id) on delete set null,
    constraint source_states_state check (state in ('active', 'held_back', 'failing')),
    constraint source_states_pending check (cardinality(pending) <= 1000)
);
create index source_states_by_holder on source_states (holder);
