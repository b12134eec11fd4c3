-- The keeper increments `revision` in statements about many sessions. One row with the largest
-- bigint would make them all fail. `not valid`: existing rows are not scanned.
alter table sessions
  add constraint sessions_revision check (revision between 0 and 4611686018427387903) not valid;
