-- The sessions of `whole`, but every session keeps its key.
set session_replication_role = replica;
drop table session_events;
alter table sessions drop constraint sessions_pkey cascade, drop constraint sessions_room_name;
drop index sessions_idempotency_key, sessions_user, sessions_live, sessions_due, sessions_created;
insert into sessions select * from whole.sessions order by id;
update sessions set idempotency_key = sha256(id::text::bytea), idempotency_fingerprint = sha256(id::text::bytea)
  where idempotency_key is null;
vacuum full sessions;
alter table sessions add primary key (organization_id, id), add constraint sessions_room_name unique (room_name);
create unique index sessions_idempotency_key on sessions (organization_id, idempotency_key)
  where idempotency_key is not null;
create index sessions_user on sessions (organization_id, user_id, id desc) where user_id is not null;
create index sessions_live on sessions (organization_id, id desc) where status in ('pending', 'active');
create index sessions_due on sessions (next_check_at) where next_check_at is not null;
create index sessions_created on sessions using brin (created_at);
vacuum (analyze) sessions;
