create table sessions (
  organization_id          uuid not null,
  id                       uuid not null,                  -- version 7: its order is the order of creation
  session_template_id      uuid not null,
  session_template_version integer not null,
  user_id                  text,
  modality_profile         text,
  enabled_panels           text[] check (array_position(enabled_panels, null) is null),
  metadata                 jsonb,
  room_name                text not null constraint sessions_room_name unique, -- LiveKit's namespace is global, so is this
  participant_identity     text not null,
  participant_name         text,
  participant_attributes   jsonb,
  room_creation            text not null check (room_creation in ('on_start', 'on_join')), -- the template's, or on_join after a token-only fallback
  status                   text not null check (status in ('pending', 'active', 'ended', 'expired', 'failed')),
  agent_status             text not null check (agent_status in ('none', 'waiting', 'dispatched', 'ready', 'left', 'unavailable')),
  end_reason               text check (end_reason in ('requested', 'user_left', 'room_closed', 'max_duration', 'join_window',
                                                      'agent_unavailable', 'agent_left', 'livekit_error')),
  token_expiry             timestamptz not null,           -- the latest of the tokens handed out
  created_at               timestamptz not null,           -- the id's millisecond
  started_at               timestamptz,
  ended_at                 timestamptz,
  join_by                  timestamptz not null,
  end_by                   timestamptz,                    -- set when it becomes active

  -- facts: what LiveKit told or showed us, each the earliest or the latest of its kind
  room_created_at          timestamptz,
  room_missing_since       timestamptz,
  room_finished_at         timestamptz,
  room_gone_at             timestamptz,                    -- seen absent after the end
  user_joined_at           timestamptz,                    -- latest
  user_left_at             timestamptz,                    -- latest; there when joined >= left
  agent_wanted_since       timestamptz,                    -- the deadline counts from here
  last_dispatch_at         timestamptz,
  agent_identity           text,                           -- of the agent last seen here
  agent_left_at            timestamptz,                    -- these three tell of one leaving
  agent_left_reason        text,
  agent_left_identity      text,
  ending_notified_at       timestamptz,

  -- the keeper's own
  next_check_at            timestamptz,                    -- null: nothing is left to see
  lease_until              timestamptz,
  revision                 bigint not null default 0,      -- every writer adds one

  idempotency_key          bytea,                          -- a hash: the key itself is never stored
  idempotency_fingerprint  bytea,                          -- sha256 over the effective request
  primary key (organization_id, id),
  foreign key (organization_id, session_template_id, session_template_version)
    references session_templates (organization_id, id, version),
  check ((ended_at is not null) = (status in ('ended', 'expired', 'failed'))),
  check ((end_reason is not null) = (status in ('ended', 'expired', 'failed'))),
  check (next_check_at is not null or status in ('ended', 'expired', 'failed'))
);

create unique index sessions_idempotency_key on sessions (organization_id, idempotency_key)
  where idempotency_key is not null;
-- The list of one end user's sessions, newest first.
create index sessions_user on sessions (organization_id, user_id, id desc) where user_id is not null;
-- The list, and the count, of what lives.
create index sessions_live on sessions (organization_id, id desc) where status in ('pending', 'active');
-- What the keeper has to look at, soonest first.
create index sessions_due on sessions (next_check_at) where next_check_at is not null;
-- Retention walks whole days; a BRIN costs the insert next to nothing.
create index sessions_created on sessions using brin (created_at);
