-- Projects: what one `davit apply` looks after, so that a later one knows what is its own. Nothing else reads it.

set local lock_timeout = '5s';

create table projects (
    namespace_id uuid not null,
    name text not null,
    revision integer not null default 1,
    -- Kind and names, such as `function/orders`.
    objects text[] not null,
    applied_at timestamptz not null default clock_timestamp(),
    constraint projects_name_taken primary key (namespace_id, name),
    constraint projects_namespace foreign key (namespace_id) references namespaces (id),
    constraint projects_name_shape check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    constraint projects_objects_count check (cardinality(objects) <= 2000)
);
