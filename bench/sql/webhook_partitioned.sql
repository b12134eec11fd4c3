\set n random(1, :rooms)
\set source random(1, 1000000000000)
select room_name, participant_identity, first_id, end_id from bench_rooms where n = :n \gset
with sessions as (
  update sessions set user_left_at = greatest(user_left_at, least(now(), now() + interval '999 milliseconds')),
    revision = revision + 1,
    next_check_at = case when exists (select from keeper_buckets
        join keeper_replicas on keeper_replicas.id = keeper_buckets.replica
        where keeper_buckets.bucket = session_bucket(sessions.id)
          and keeper_replicas.lease_until > now() and keeper_replicas.id = 'e0597c15-d721-776e-8a79-7581b4cd4e30')
      then coalesce(next_check_at, case when status in ('pending', 'active') then now() else next_check_at end)
      else case when status in ('pending', 'active') then now() else next_check_at end end
  where sessions.room_name = :room_name and sessions.id >= :first_id and sessions.id < :end_id and sessions.participant_identity = :participant_identity
  returning sessions.organization_id, sessions.id, exists (select from keeper_buckets
    join keeper_replicas on keeper_replicas.id = keeper_buckets.replica
    where keeper_buckets.bucket = session_bucket(sessions.id)
      and keeper_replicas.lease_until > now() and keeper_replicas.id = 'e0597c15-d721-776e-8a79-7581b4cd4e30') as is_held),
new_events as (
  insert into session_events (organization_id, session_id, at, event, source_id, detail)
  select organization_id, id, now(), 'user_left', :source, '{"at": 1795357822}'::jsonb from sessions
  on conflict do nothing)
select organization_id, id, is_held from sessions;
