-- Why instances of a kind cannot be started at present: for the calls that wait for one, and for whoever looks at the function.

set local lock_timeout = '5s';

create table obstacles (
    image        text not null,
    memory_mb    int not null,
    cpu_millis   int not null,
    ephemeral_mb int not null,
    network      text not null,
    reason       text not null,
    noted_at     timestamptz not null default clock_timestamp(),
    constraint obstacle_once primary key (image, memory_mb, cpu_millis, ephemeral_mb, network),
    constraint obstacle_reason check (char_length(reason) between 1 and 1000)
);
