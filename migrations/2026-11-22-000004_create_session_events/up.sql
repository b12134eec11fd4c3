create table session_events (
  organization_id uuid not null,
  session_id      uuid not null,
  seq             bigint generated always as identity,     -- the timeline's order
  at              timestamptz not null,                    -- when Greenroom learned of it; LiveKit's time, whole seconds, is in detail
  event           text not null,
  source_id       text,                                    -- event and sid, such as user_joined/PA_x: told or seen, it stands here once
  detail          jsonb not null default '{}',
  primary key (organization_id, session_id, seq),
  constraint session_events_source unique (organization_id, session_id, source_id),
  foreign key (organization_id, session_id) references sessions (organization_id, id) on delete cascade
);
