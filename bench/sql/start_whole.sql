\set n :n + 1
select organization_id, session_id, template_id, user_id, room_name, key from bench_new where n = :n \gset
with new as (select * from unnest(:organization_id::uuid[], :session_id::uuid[], :template_id::uuid[],
    array[null]::text[], :user_id::text[], array['{"ticket": "4711", "language": "en"}']::jsonb[],
    :room_name::text[], :user_id::text[], array[null]::text[], array[null]::jsonb[],
    :key::bytea[], :key::bytea[], array[false], array[true])
    with ordinality as row (organization_id, session_id, session_template_id, requested_agent, user_id, metadata,
      room_name, participant_identity, participant_name, participant_attributes, idempotency_key,
      idempotency_fingerprint, is_key_implicit, is_first_check_remembered, number)
  where number * 0 = 0),
startable as (
  select new.*, template.version, template.modality_profile, template.enabled_panels,
    template.agent_name, template.agent_metadata, template.room_creation,
    template.join_window_seconds, template.reconnect_window_seconds,
    template.token_ttl_seconds, organizations.is_counted,
    case when not unlimited then coalesce(max_active_sessions, null) end as max_sessions
  from new
  cross join lateral (
    select * from organizations where id = new.organization_id offset 0) as organizations
  cross join lateral (
    select * from session_templates
    where organization_id = new.organization_id and id = new.session_template_id
      and superseded_at is null and archived_at is null
      and agent_name is not distinct from coalesce(new.requested_agent, agent_name) and
    room_creation in ('on_start', 'on_join')
    and on_agent_hangup in ('keep', 'end')
    and (modality_profile is null or modality_profile in (
      'audio', 'camera', 'audio+camera', 'screen', 'audio+screen', 'camera+screen',
      'audio+camera+screen', 'text', 'audio+text', 'camera+text', 'audio+camera+text',
      'screen+text', 'audio+screen+text', 'camera+screen+text', 'audio+camera+screen+text'))
    and (agent_name is null or char_length(agent_name) between 1 and 64
      and not starts_with(agent_name, 'greenroom.') and agent_name !~ '[\u0001-\u001f]')
    and jsonb_typeof(agent_metadata) = 'object'
    and (agent_deadline_seconds is null or agent_deadline_seconds between 5 and 300)
    and join_window_seconds between 30 and 86400
    and reconnect_window_seconds between 5 and 3600
    and max_duration_seconds between 60 and 86400
    and (token_ttl_seconds is null or token_ttl_seconds between 60 and 86400)
    offset 0) as template),
template as (select * from startable
  where max_sessions is null and not is_counted
    and (select set_config('greenroom.session_is_uncounted', 'true', true)) = 'true'),
sessions as (
  insert into sessions (
    organization_id, id, session_template_id, session_template_version,
    modality_profile, enabled_panels, room_creation, status, agent_status,
    user_id, metadata, room_name, participant_identity, participant_name, participant_attributes,
    idempotency_key, idempotency_fingerprint, join_by, next_check_at, created_at, token_expiry)
  select
    organization_id, session_id, session_template_id, version,
    modality_profile, enabled_panels, room_creation, 'pending',
    case when agent_name is null then 'none' else 'waiting' end,
    user_id, metadata, room_name, participant_identity, participant_name, participant_attributes,
    idempotency_key, idempotency_fingerprint, now() + make_interval(secs => join_window_seconds),
    now() + case when room_creation = 'on_start' then interval '6 seconds'
      else make_interval(secs => case when is_first_check_remembered then join_window_seconds
        else least(join_window_seconds, 30) end) end,
    date_trunc('milliseconds', now()),
    date_trunc('second', now()) + make_interval(secs => coalesce(template.token_ttl_seconds, 600))
  from template order by organization_id, idempotency_key, session_id
  on conflict (organization_id, idempotency_key) where idempotency_key is not null do nothing
  returning *)
select template.session_id, sessions.organization_id, sessions.id, sessions.session_template_id,
  sessions.session_template_version, sessions.user_id, sessions.modality_profile, sessions.enabled_panels,
  sessions.metadata, sessions.room_name, sessions.participant_identity, sessions.room_creation,
  sessions.status, sessions.agent_status, sessions.end_reason, sessions.token_expiry, sessions.created_at,
  sessions.started_at, sessions.ended_at, sessions.join_by, sessions.participant_name,
  sessions.participant_attributes, template.agent_name, template.agent_metadata,
  template.reconnect_window_seconds,
  greatest(0, ceil(extract(epoch from sessions.join_by - now())))::integer,
  sessions.token_expiry, date_trunc('second', now()), false
from sessions join template on template.session_id = sessions.id
  and template.organization_id = sessions.organization_id;
