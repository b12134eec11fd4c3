create table organizations (
  id                  uuid primary key,
  max_active_sessions integer check (max_active_sessions >= 0),      -- null: the server's default
  unlimited           boolean not null default false,
  created_at          timestamptz not null default now()
);
