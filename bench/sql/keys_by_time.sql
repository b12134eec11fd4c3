with batch as (
  select organization_id, id, idempotency_key, created_at from sessions
  where idempotency_key is not null and created_at < now() - interval '43200 seconds' and created_at > now() - interval '44400 seconds' order by created_at limit 1000),
expired as (
  select sessions.organization_id, sessions.id from sessions join batch using (organization_id, id)
  where not batch.created_at > now() - interval '43200 seconds'
  for update of sessions skip locked),
released as (
  update sessions set idempotency_key = null, idempotency_fingerprint = null, revision = revision + 1
  from expired where sessions.organization_id = expired.organization_id and sessions.id = expired.id)
select count(*) from batch;
