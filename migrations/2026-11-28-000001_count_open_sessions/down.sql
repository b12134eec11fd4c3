-- loses: nothing, because a start counts the sessions again
drop function reset_open_session_counts();
drop function count_open_sessions();
drop function change_open_session_count(uuid, integer);
drop table open_session_changes;
drop table open_session_counts;
alter table organizations drop column is_counted;
