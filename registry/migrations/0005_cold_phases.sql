-- Where the time of a function's last cold start went: an object of phases in milliseconds.

set local lock_timeout = '5s';

alter table usage add column last_cold jsonb;
