\set n random(1, :sessions)
select organization_id, id, user_id from bench_sessions where n = :n \gset
