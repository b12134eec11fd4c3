\set n random(1, :rooms)
\set source random(1, 1000000000000)
select room_name, participant_identity, first_id, end_id from bench_rooms where n = :n \gset
