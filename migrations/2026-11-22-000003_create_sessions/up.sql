create table sessions (
  organization_id          uuid not null,
  id                       uuid not null,                  -- UUID version 7 with the time of the process: sorts by creation time
  session_template_id      uuid not null,
  session_template_version integer not null,
  user_id                  text,
  modality_profile         text,
  enabled_panels           text[] check (array_position(enabled_panels, null) is null),
  metadata                 jsonb,
  room_name                text not null constraint sessions_room_name unique, -- unique across organizations: they share LiveKit's room namespace
  participant_identity     text not null,
  participant_name         text,
  participant_attributes   jsonb,
  room_creation            text not null check (room_creation in ('on_start', 'on_join')), -- the template's value; on_join after the token_only fallback
  status                   text not null check (status in ('pending', 'active', 'ended', 'expired', 'failed')),
  agent_status             text not null check (agent_status in ('none', 'waiting', 'dispatched', 'ready', 'left', 'unavailable')),
  end_reason               text check (end_reason in ('requested', 'user_left', 'room_closed', 'max_duration', 'join_window',
                                                      'agent_unavailable', 'agent_left', 'livekit_error')),
  token_expiry             timestamptz not null,           -- the latest expiry of the issued tokens
  created_at               timestamptz not null,           -- now() at the start, in milliseconds
  started_at               timestamptz,
  ended_at                 timestamptz,
  join_by                  timestamptz not null,
  end_by                   timestamptz,                    -- the max_duration deadline; set when status becomes active

  -- Facts that LiveKit's webhooks reported or that the keeper observed in LiveKit. Each time is the
  -- earliest or the latest of its kind, so the order in which facts arrive does not matter.
  room_created_at          timestamptz,                    -- earliest
  room_missing_since       timestamptz,                    -- since when the room has been absent while the session is live
  room_finished_at         timestamptz,                    -- latest, from the webhook room_finished
  room_gone_at             timestamptz,                    -- since when the room has been absent after the session ended
  user_joined_at           timestamptz,                    -- latest
  user_left_at             timestamptz,                    -- latest; after a join, the user is absent if user_left_at > user_joined_at
  agent_wanted_since       timestamptz,                    -- the agent's deadline counts from this time
  last_dispatch_at         timestamptz,                    -- latest; null: dispatch at the next check
  agent_identity           text,                           -- of the agent last observed in the room
  agent_left_at            timestamptz,                    -- agent_left_* describe the latest departure of an agent
  agent_left_reason        text,                           -- LiveKit's disconnect reason; null: no webhook reported it
  agent_left_identity      text,
  ending_notified_at       timestamptz,                    -- when the participants were notified that end_by is near

  -- Columns of the keeper, the loop that reconciles sessions with LiveKit.
  next_check_at            timestamptz,                    -- null: nothing is left to check
  lease_until              timestamptz,                    -- until then one process holds the claim
  revision                 bigint not null default 0,      -- every write adds one

  idempotency_key          bytea,                          -- a hash; the key itself is never stored
  idempotency_fingerprint  bytea,                          -- SHA-256 over the effective request; versions other than 1 precede it with one byte
  primary key (organization_id, id),
  foreign key (organization_id, session_template_id, session_template_version)
    references session_templates (organization_id, id, version),
  check ((ended_at is not null) = (status in ('ended', 'expired', 'failed'))),
  check ((end_reason is not null) = (status in ('ended', 'expired', 'failed'))),
  check (next_check_at is not null or status in ('ended', 'expired', 'failed'))
);

create unique index sessions_idempotency_key on sessions (organization_id, idempotency_key)
  where idempotency_key is not null;
-- Lists one end user's sessions, newest first.
create index sessions_user on sessions (organization_id, user_id, id desc) where user_id is not null;
-- Lists and counts open sessions (pending or active).
create index sessions_live on sessions (organization_id, id desc) where status in ('pending', 'active');
-- Finds the sessions that the keeper must check, earliest first.
create index sessions_due on sessions (next_check_at) where next_check_at is not null;
-- Retention selects sessions by their age in days. A coarse BRIN index is enough for that and costs an
-- insert almost nothing.
create index sessions_created on sessions using brin (created_at);
