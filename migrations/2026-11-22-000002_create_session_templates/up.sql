-- A row is one version of a template. Only superseded_at and archived_at change after the insert: a
-- change of the template inserts the next version, and a session keeps referring to the version it was
-- started from.
create table session_templates (
  organization_id          uuid not null references organizations (id),
  id                       uuid not null,
  version                  integer not null,
  name                     text not null check (char_length(name) between 1 and 100),
  modality_profile         text,
  enabled_panels           text[] check (array_position(enabled_panels, null) is null),
  agent_name               text check (char_length(agent_name) between 1 and 64),
  agent_metadata           jsonb not null,
  agent_required           boolean not null,
  agent_deadline_seconds   integer,
  on_agent_hangup          text not null check (on_agent_hangup in ('keep', 'end')),
  room_creation            text not null check (room_creation in ('on_start', 'on_join')),
  join_window_seconds      integer not null,
  reconnect_window_seconds integer not null,
  max_duration_seconds     integer not null,
  token_ttl_seconds        integer,
  created_at               timestamptz not null,                     -- when the template's first version was inserted
  updated_at               timestamptz not null,                     -- when this version was inserted
  superseded_at            timestamptz,                              -- null: the current version
  archived_at              timestamptz,
  primary key (organization_id, id, version)
);

-- A start selects the current version by id. An id has one current version in the whole deployment.
create unique index session_templates_current on session_templates (id)
  where superseded_at is null;
-- Names are unique per organization, without regard to case, among templates that are not archived.
create unique index session_templates_living_name on session_templates (organization_id, lower(name))
  where superseded_at is null and archived_at is null;
