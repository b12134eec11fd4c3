create table organizations (
  id                  uuid primary key,
  max_active_sessions integer check (max_active_sessions >= 0),      -- null: the server's default, GREENROOM_MAX_ACTIVE_SESSIONS
  unlimited           boolean not null default false,                -- true: no limit, whatever the server's default is
  created_at          timestamptz not null default now()
);
