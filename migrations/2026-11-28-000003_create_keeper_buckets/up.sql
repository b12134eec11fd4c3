-- The processes that run a keeper. A process that stops renewing its lease loses its buckets.
create table keeper_replicas (
  id          uuid primary key,                            -- random, of one run of a process
  lease_until timestamptz not null
) with (fillfactor = 50);                                  -- renewed every second, in place

-- Each session belongs to one of 1,024 buckets, and each bucket to at most one replica, which alone
-- checks its sessions. The rows change only when a bucket moves.
create table keeper_buckets (
  bucket  smallint primary key check (bucket between 0 and 1023),
  replica uuid,                                            -- null, or without a valid lease: free
  epoch   bigint not null default 0                        -- every move adds one, so that writes of the previous owner are refused
) with (fillfactor = 50);

insert into keeper_buckets (bucket) select generate_series(0, 1023);

-- The bucket of a session: the last ten bits of its id, which are random.
create function session_bucket(id uuid) returns smallint
  language sql immutable strict parallel safe
  return ((get_byte(uuid_send(id), 14) & 3) * 256 + get_byte(uuid_send(id), 15))::smallint;
