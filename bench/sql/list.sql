\set n random(1, :sessions)
select organization_id, id, user_id from bench_sessions where n = :n \gset
select sessions.organization_id, sessions.id, session_template_id, session_template_version, user_id,
  modality_profile, enabled_panels, metadata, room_name, participant_identity, room_creation, status,
  agent_status, end_reason, token_expiry, created_at, started_at, ended_at, join_by
from sessions where organization_id = :organization_id order by id desc limit 51;
