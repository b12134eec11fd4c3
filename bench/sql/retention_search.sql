explain (analyze, buffers, costs off, timing off) select organization_id, id from sessions
where created_at < now() - make_interval(days => :days) and ended_at < now() - make_interval(days => :days)
  and next_check_at is null limit 1000 for update skip locked;
