drop trigger sessions_count_truncate on sessions;
drop trigger sessions_count_delete on sessions;
drop trigger sessions_count_update on sessions;
drop trigger sessions_count_insert on sessions;
