-- Where an instance's agent is reached when it is not on its gateway's machine: an address and a port. The secret that both ends
-- prove is derived from the master key and stored nowhere.

set local lock_timeout = '5s';

alter table instances add column address text;
