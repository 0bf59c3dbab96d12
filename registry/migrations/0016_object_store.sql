-- Content may lie in an object store instead of in chunks here. The row comes before the object and goes after it, so
-- that no object is ever forgotten.

set local lock_timeout = '5s';

alter table artifact_uploads add column object text,
    add constraint artifact_uploads_object_length check (length(object) between 1 and 1024);
