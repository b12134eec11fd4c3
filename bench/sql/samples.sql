-- What the scripts of pgbench look up, by number.
-- Existing sessions of the 30 days.
create table public.bench_sessions as
  select row_number() over (order by md5(id::text))::integer as n, organization_id::text, id::text, user_id
  from whole.sessions;
alter table public.bench_sessions add primary key (n);
-- Sessions of the last day, for webhooks. `first` and `end` are the ids of the second in the room's name.
create table public.bench_rooms as
  select row_number() over (order by md5(id::text))::integer as n, room_name, participant_identity,
    bench_first_id(date_trunc('second', created_at))::text as first_id,
    bench_first_id(date_trunc('second', created_at) + interval '1 second')::text as end_id
  from whole.sessions where created_at > now() - interval '1 day';
alter table public.bench_rooms add primary key (n);
-- New sessions, as array literals.
create table public.bench_new as
  select n, '{' || md5('organization ' || 1 + n % 20)::uuid || '}' as organization_id,
    '{' || bench_id(at, 'new ' || n) || '}' as session_id,
    '{' || md5('template ' || md5('organization ' || 1 + n % 20)::uuid)::uuid || '}' as template_id,
    '{user-' || n % 5003 || '}' as user_id, '{' || bench_room(at, n) || '}' as room_name,
    '{"\\x' || encode(sha256(('new ' || n)::bytea), 'hex') || '"}' as key
  from (select n, now() + n * interval '1 millisecond' as at from generate_series(1, 200000) n) as new;
alter table public.bench_new add primary key (n);
vacuum (analyze) public.bench_sessions;
vacuum (analyze) public.bench_rooms;
vacuum (analyze) public.bench_new;
