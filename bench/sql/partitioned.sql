-- Replaces `sessions` and `session_events` by tables that are partitioned by ranges of the id, with the
-- rows of the schema `whole`. :step is the length of a partition, :lag the number of days before today at
-- which the first partition begins, :parts the number of partitions.
set session_replication_role = replica;
set maintenance_work_mem = '1GB';
drop table session_events, sessions;
create table sessions (like whole.sessions including defaults including constraints)
  partition by range (id);
create table session_events (like whole.session_events including defaults including constraints including identity)
  partition by range (session_id);
-- One partition per value: the day of the key's start.
create table session_keys (
  day date not null,
  organization_id uuid not null,
  key bytea not null,
  fingerprint bytea not null,
  session_id uuid not null
) partition by list (day);

create procedure add_partition(name text, first timestamptz, last timestamptz) language plpgsql as $$
begin
  execute format('create table sessions_%s partition of sessions for values from (%L) to (%L)',
    name, public.bench_first_id(first), public.bench_first_id(last));
  execute format('create table session_events_%s partition of session_events for values from (%L) to (%L)',
    name, public.bench_first_id(first), public.bench_first_id(last));
end $$;
-- Partitions begin at midnight UTC.
set timezone = 'utc';
select format('call add_partition(%L, %L, %L)', to_char(first, 'YYYYMMDD'), first, first + :'step'::interval)
  from (select current_date + :'step'::interval * n - make_interval(days => :lag) as first
    from generate_series(0, :parts - 1) n) as bounds \gexec
select format('create table session_keys_%s partition of session_keys for values in (%L)',
    to_char(current_date + n, 'YYYYMMDD'), current_date + n)
  from generate_series(-2, 1) n \gexec

insert into sessions select * from whole.sessions;
insert into session_events (organization_id, session_id, at, event, source_id, detail)
  select organization_id, session_id, at, event, source_id, detail from whole.session_events order by seq;
insert into session_keys
  select (created_at at time zone 'utc')::date, organization_id, idempotency_key, idempotency_fingerprint, id
  from whole.sessions where idempotency_key is not null;
update sessions set idempotency_key = null, idempotency_fingerprint = null where idempotency_key is not null;

alter table sessions add primary key (organization_id, id);
alter table sessions add foreign key (organization_id, session_template_id, session_template_version)
  references session_templates (organization_id, id, version);
create index sessions_user on sessions (organization_id, user_id, id desc) where user_id is not null;
create index sessions_live on sessions (organization_id, id desc) where status in ('pending', 'active');
create index sessions_due on sessions (next_check_at) where next_check_at is not null;
-- A unique constraint of the parent would have to include the id.
select format('create unique index %I on %s (room_name)', relname || '_room_name', oid::regclass)
  from pg_class where oid in (select inhrelid from pg_inherits where inhparent = 'sessions'::regclass) \gexec
alter table session_events add primary key (organization_id, session_id, seq),
  add constraint session_events_source unique (organization_id, session_id, source_id),
  add foreign key (organization_id, session_id) references sessions (organization_id, id) on delete cascade;
alter table session_keys add primary key (day, organization_id, key);
create trigger sessions_count_insert after insert on sessions for each row
  when (current_setting('greenroom.session_is_uncounted', true) is distinct from 'true')
  execute function count_open_sessions();
create trigger sessions_count_update after update of status, organization_id on sessions for each row
  when ((old.status in ('pending', 'active')) <> (new.status in ('pending', 'active'))
    or old.organization_id <> new.organization_id)
  execute function count_open_sessions();
create trigger sessions_count_delete after delete on sessions for each row
  when (old.status in ('pending', 'active'))
  execute function count_open_sessions();
vacuum (analyze) sessions;
vacuum (analyze) session_events;
vacuum (analyze) session_keys;
