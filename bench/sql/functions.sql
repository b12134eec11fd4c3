-- A UUID of version 7 for a time, with random bits that follow from `seed`.
create function bench_id(at timestamptz, seed text) returns uuid language sql immutable as $$
  select (lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0')
    || '7' || substr(md5(seed), 1, 3) || 'a' || substr(md5(seed), 4, 15))::uuid
$$;
-- The smallest UUID of version 7 for a time, which bounds a partition.
create function bench_first_id(at timestamptz) returns uuid language sql immutable as $$
  select (lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
-- The name of a session's room, as the product builds it.
create function bench_room(at timestamptz, n bigint) returns text language sql stable as $$
  select 'session_' || to_char(at at time zone 'utc', 'YYYYMMDD_HH24MISS') || '_' || lpad(to_hex(n % 16777216), 6, '0')
$$;
