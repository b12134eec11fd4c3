-- Repeats the product's statement until it deletes nothing.
set plan_cache_mode = auto;
select set_config('bench.days', :'days', false) \g /dev/null
do $$
declare deleted bigint;
begin
  loop
    with old as (
      select organization_id, id from sessions
      where created_at < now() - make_interval(days => current_setting('bench.days')::integer)
        and ended_at < now() - make_interval(days => current_setting('bench.days')::integer)
        and next_check_at is null limit 1000 for update skip locked)
    delete from sessions using old
    where sessions.organization_id = old.organization_id and sessions.id = old.id;
    get diagnostics deleted = row_count;
    commit;
    exit when deleted = 0;
  end loop;
end $$;
