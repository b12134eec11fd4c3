-- loses: sessions
drop table sessions;
