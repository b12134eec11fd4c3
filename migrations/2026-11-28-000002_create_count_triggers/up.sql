-- A migration of its own, because it locks `sessions`: the migration before locks `organizations`,
-- and starts lock both tables, some in this order and some in the other.

-- Counts that were kept before these triggers were dropped are not valid any more.
update open_session_counts set open = null;

-- A start sets greenroom.session_is_uncounted to true in its statement if its organization is not
-- counted, or if the statement adds all its sessions to the count itself, because a function call per
-- session would be expensive. Other writers, such as the previous version, do not know the setting.
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
create trigger sessions_count_truncate after truncate on sessions
  execute function reset_open_session_counts();
