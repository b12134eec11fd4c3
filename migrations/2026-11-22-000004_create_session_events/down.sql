drop table session_events;
