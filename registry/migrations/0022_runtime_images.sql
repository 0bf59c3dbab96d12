-- Which image each runtime's next deployments are built for: written by the controller that looks after the engine, read
-- by whoever asks which versions are behind.

set local lock_timeout = '5s';

create table runtime_images (
    runtime text not null,
    image_id text not null,
    since timestamptz not null default clock_timestamp(),
    constraint runtime_images_name_taken primary key (runtime)
);
