-- The open sessions of organizations with a limit, so that a start need not count them. Triggers keep
-- the count for every writer; docs/decisions/0018-count-of-open-sessions.md explains the rules.
--
-- An organization without a row is not counted. The number of its open sessions is `open` plus the
-- sum of its changes.
alter table organizations
  add column is_counted boolean not null default false;              -- true: open_session_counts has a row

create table open_session_counts (
  organization_id uuid primary key references organizations (id) on delete cascade,
  generation      bigint generated always as identity,               -- differs after the count ended and began again
  open            integer                                            -- null: not counted yet
) with (fillfactor = 50);

-- Changes by transactions that found the row of open_session_counts locked.
create table open_session_changes (
  organization_id uuid not null,
  id              bigint generated always as identity,
  change          integer not null,
  primary key (organization_id, id)
);

-- Waits for no lock, so a writer of several sessions cannot deadlock, and an open transaction blocks
-- neither a start nor the end of a session.
create function change_open_session_count(of_organization uuid, difference integer) returns void
language plpgsql as $$
begin
  if not exists (select from open_session_counts where organization_id = of_organization) then
    -- A newer row is invisible to a repeatable-read snapshot. This insert then fails with a
    -- serialization failure.
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
      insert into open_session_counts (organization_id) values (of_organization) on conflict do nothing;
      delete from open_session_counts where organization_id = of_organization;
    end if;
    return;
  end if;
  perform from open_session_counts where organization_id = of_organization for update skip locked;
  if found then
    with merged as (
      delete from open_session_changes where organization_id = of_organization and id in (
        select id from open_session_changes where organization_id = of_organization order by id limit 1000)
      returning change)
    update open_session_counts
      set open = open + difference + coalesce((select sum(change) from merged), 0)
      where organization_id = of_organization;
  else
    insert into open_session_changes (organization_id, change) values (of_organization, difference);
  end if;
end $$;

create function count_open_sessions() returns trigger
language plpgsql as $$
begin
  -- Without a limit, a change costs this probe of an index.
  if current_setting('transaction_isolation') = 'read committed' and not exists (
    select from open_session_counts where organization_id in (old.organization_id, new.organization_id))
  then
    return null;
  end if;
  if tg_op <> 'INSERT' and old.status in ('pending', 'active') then
    perform change_open_session_count(old.organization_id, -1);
  end if;
  if tg_op <> 'DELETE' and new.status in ('pending', 'active') then
    perform change_open_session_count(new.organization_id, 1);
  end if;
  return null;
end $$;

create function reset_open_session_counts() returns trigger
language plpgsql as $$
begin
  update open_session_counts set open = 0;
  delete from open_session_changes;
  return null;
end $$;
