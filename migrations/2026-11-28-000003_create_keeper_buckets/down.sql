-- loses: nothing, because the previous version leases each session instead
-- Stop the processes of this version first: they would store deadlines again. The previous version
-- checks a session only when `next_check_at` is due, so the checks are spread over a minute. Sessions
-- that another transaction is changing are due already.
with locked as (
  select organization_id, id from sessions
  where next_check_at > now() + interval '1 minute' and room_gone_at is null
  order by organization_id, id for update skip locked)
update sessions
  set next_check_at = now() + random() * interval '1 minute', revision = revision + 1
  from locked where sessions.organization_id = locked.organization_id and sessions.id = locked.id;
drop function session_bucket(uuid);
drop table keeper_buckets;
drop table keeper_replicas;
