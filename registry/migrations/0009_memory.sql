-- The controller asks a gateway for memory when a call waits for a start that finds no room: the gateway alone knows
-- which of its idle instances are worth least, and that no call is on its way into one.

set local lock_timeout = '5s';

alter table gateways add column asked_mb bigint not null default 0,
    add constraint gateways_asked_positive check (asked_mb >= 0);
