-- Applied after the migrations, in the schema of the search_path: organizations, templates, and one
-- replica that holds all buckets.
insert into organizations (id)
  select md5('organization ' || n)::uuid from generate_series(1, 20) n;
insert into session_templates (
    organization_id, id, version, name, modality_profile, agent_name, agent_metadata, agent_required,
    on_agent_hangup, room_creation, join_window_seconds, reconnect_window_seconds, max_duration_seconds,
    created_at, updated_at)
  select id, md5('template ' || id)::uuid, 1, 'Support', 'audio', 'support', '{"language": "en"}', true,
    'keep', 'on_start', 300, 30, 3600, now(), now()
  from organizations;
insert into keeper_replicas values (md5('replica')::uuid, now() + interval '1 day');
update keeper_buckets set replica = md5('replica')::uuid;
