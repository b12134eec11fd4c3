alter table sessions drop constraint sessions_revision;
