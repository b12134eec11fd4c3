//! @generated
diesel::table! {
    organizations (id) {
        id -> Uuid,
        max_active_sessions -> Nullable<Int4>,
        unlimited -> Bool,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    session_events (organization_id, session_id, seq) {
        organization_id -> Uuid,
        session_id -> Uuid,
        seq -> Int8,
        at -> Timestamptz,
        event -> Text,
        source_id -> Nullable<Text>,
        detail -> Jsonb,
    }
}

diesel::table! {
    session_templates (organization_id, id, version) {
        organization_id -> Uuid,
        id -> Uuid,
        version -> Int4,
        name -> Text,
        modality_profile -> Nullable<Text>,
        enabled_panels -> Nullable<Array<Text>>,
        agent_name -> Nullable<Text>,
        agent_metadata -> Jsonb,
        agent_required -> Bool,
        agent_deadline_seconds -> Nullable<Int4>,
        on_agent_hangup -> Text,
        room_creation -> Text,
        join_window_seconds -> Int4,
        reconnect_window_seconds -> Int4,
        max_duration_seconds -> Int4,
        token_ttl_seconds -> Nullable<Int4>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        superseded_at -> Nullable<Timestamptz>,
        archived_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    sessions (organization_id, id) {
        organization_id -> Uuid,
        id -> Uuid,
        session_template_id -> Uuid,
        session_template_version -> Int4,
        user_id -> Nullable<Text>,
        modality_profile -> Nullable<Text>,
        enabled_panels -> Nullable<Array<Text>>,
        metadata -> Nullable<Jsonb>,
        room_name -> Text,
        participant_identity -> Text,
        participant_name -> Nullable<Text>,
        participant_attributes -> Nullable<Jsonb>,
        room_creation -> Text,
        status -> Text,
        agent_status -> Text,
        end_reason -> Nullable<Text>,
        token_expiry -> Timestamptz,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        ended_at -> Nullable<Timestamptz>,
        join_by -> Timestamptz,
        end_by -> Nullable<Timestamptz>,
        room_created_at -> Nullable<Timestamptz>,
        room_missing_since -> Nullable<Timestamptz>,
        room_finished_at -> Nullable<Timestamptz>,
        room_gone_at -> Nullable<Timestamptz>,
        user_joined_at -> Nullable<Timestamptz>,
        user_left_at -> Nullable<Timestamptz>,
        agent_wanted_since -> Nullable<Timestamptz>,
        last_dispatch_at -> Nullable<Timestamptz>,
        agent_identity -> Nullable<Text>,
        agent_left_at -> Nullable<Timestamptz>,
        agent_left_reason -> Nullable<Text>,
        agent_left_identity -> Nullable<Text>,
        ending_notified_at -> Nullable<Timestamptz>,
        next_check_at -> Nullable<Timestamptz>,
        lease_until -> Nullable<Timestamptz>,
        revision -> Int8,
        idempotency_key -> Nullable<Bytea>,
        idempotency_fingerprint -> Nullable<Bytea>,
    }
}

diesel::joinable!(session_templates -> organizations (organization_id));

diesel::allow_tables_to_appear_in_same_query!(
    organizations,
    session_events,
    session_templates,
    sessions,
);
