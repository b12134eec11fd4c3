-- loses: session_events
drop table session_events;
