\set n :n + 1
select organization_id, session_id, template_id, user_id, room_name, key from bench_new where n = :n \gset
