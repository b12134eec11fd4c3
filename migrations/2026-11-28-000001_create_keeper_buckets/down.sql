-- Earlier versions check a session only when `next_check_at` is due. Spread the checks over a minute.
update sessions set next_check_at = least(next_check_at, now() + random() * interval '1 minute')
  where next_check_at is not null;
drop function session_bucket(uuid);
drop table keeper_buckets;
drop table keeper_replicas;
