-- 30 days with :sessions sessions and 8 events per session. Those of the last 24 hours hold a key;
-- those of the last ten minutes are open.
set session_replication_role = replica;
set work_mem = '256MB';
set maintenance_work_mem = '1GB';
alter table session_events drop constraint session_events_pkey, drop constraint session_events_source;
with new as (
  select n, md5('organization ' || 1 + n % 20)::uuid as organization_id,
    date_trunc('milliseconds', now() - interval '30 days' + n * (interval '30 days' / :sessions)) as at
  from generate_series(1, :sessions) n)
insert into sessions (
    organization_id, id, session_template_id, session_template_version, user_id, modality_profile, metadata,
    room_name, participant_identity, room_creation, status, agent_status, end_reason, token_expiry,
    created_at, started_at, ended_at, join_by, end_by, room_created_at, room_finished_at, room_gone_at,
    user_joined_at, user_left_at, agent_wanted_since, last_dispatch_at, agent_identity,
    next_check_at, revision, idempotency_key, idempotency_fingerprint)
  select organization_id, bench_id(at, n::text), md5('template ' || organization_id)::uuid, 1,
    'user-' || n % 5003, 'audio', '{"ticket": "4711", "language": "en"}',
    bench_room(at, n), 'user-' || n % 5003, 'on_start',
    case when is_open then 'active' else 'ended' end, 'ready', case when not is_open then 'user_left' end,
    at + interval '10 minutes', at, at + interval '3 seconds',
    case when not is_open then at + interval '5 minutes' end, at + interval '5 minutes', at + interval '1 hour',
    at, case when not is_open then at + interval '5 minutes' end, case when not is_open then at + interval '6 minutes' end,
    at + interval '3 seconds', case when not is_open then at + interval '5 minutes' end, at, at, 'agent-AJ_' || n,
    case when is_open then at + interval '1 day' end, 9,
    case when holds_key then sha256(n::text::bytea) end, case when holds_key then sha256(('request ' || n)::bytea) end
  from new cross join lateral (select at > now() - interval '10 minutes' as is_open,
    at > now() - interval '1 day' as holds_key) as age;
insert into session_events (organization_id, session_id, at, event, source_id, detail)
  select organization_id, id, created_at + k * interval '30 seconds', event,
    case when k between 2 and 7 then event || '/PA_' || substr(md5(id::text || k), 1, 12) end,
    jsonb_build_object('identity', participant_identity, 'at', floor(extract(epoch from created_at)))
  from (select *, row_number() over (order by id) as n from sessions) as sessions
  cross join unnest(array['room_created', 'agent_dispatched', 'agent_joined', 'user_joined', 'token_refreshed',
    'user_left', 'agent_left', 'session_ended']) with ordinality as kind (event, k);
alter table session_events add primary key (organization_id, session_id, seq),
  add constraint session_events_source unique (organization_id, session_id, source_id);
vacuum (analyze) sessions;
vacuum (analyze) session_events;
