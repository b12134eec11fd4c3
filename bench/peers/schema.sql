-- The tables of the Go and of the FastAPI service.
create table templates (
  id                  uuid primary key,
  organization_id     uuid not null,
  name                text not null check (char_length(name) between 1 and 100),
  agent_name          text,
  agent_metadata      jsonb not null default '{}',
  room_creation       text not null check (room_creation in ('on_start', 'on_join')),
  join_window_seconds integer not null,
  token_ttl_seconds   integer not null,
  created_at          timestamptz not null default now(),
  archived_at         timestamptz
);

create table sessions (
  id                   uuid primary key,   -- UUID version 7
  organization_id      uuid not null,
  template_id          uuid not null references templates (id),
  user_id              text,
  metadata             jsonb,
  room_name            text not null unique,
  participant_identity text not null,
  participant_name     text,
  status               text not null default 'pending'
                       check (status in ('pending', 'active', 'ended', 'failed')),
  token_expiry         timestamptz not null,
  join_by              timestamptz not null,
  created_at           timestamptz not null default now(),
  room_created_at      timestamptz,
  started_at           timestamptz,
  ended_at             timestamptz,
  idempotency_key      text,
  request_hash         bytea
);

create unique index sessions_idempotency_key on sessions (organization_id, idempotency_key)
  where idempotency_key is not null;
create index sessions_of_organization on sessions (organization_id, created_at desc, id desc);
