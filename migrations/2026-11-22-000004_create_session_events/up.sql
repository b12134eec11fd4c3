create table session_events (
  organization_id uuid not null,
  session_id      uuid not null,
  seq             bigint generated always as identity,     -- order in the timeline
  at              timestamptz not null,                    -- when Greenroom learned of the event; detail holds LiveKit's time in whole seconds
  event           text not null,
  source_id       text,                                    -- event/sid, such as user_joined/PA_x; stores an event once if both webhook and keeper report it
  detail          jsonb not null default '{}',
  primary key (organization_id, session_id, seq),
  constraint session_events_source unique (organization_id, session_id, source_id),
  foreign key (organization_id, session_id) references sessions (organization_id, id) on delete cascade
);
