//! The settings and the dispatch of a session's room, for `CreateRoom` and for join tokens.

use greenroom_domain::RoomCreation;
use greenroom_livekit::dispatch::PrivateMetadata;
use greenroom_livekit::{AgentDispatch, JobMetadata, RoomSettings};
use greenroom_store::SessionSetup;

/// Returns the settings of a session's room. The time left to join comes from PostgreSQL's clock.
pub(crate) fn room_settings(setup: &SessionSetup, dispatch: AgentDispatch) -> RoomSettings {
    RoomSettings::new(setup.join_within.unsigned_abs(), setup.reconnect_window, dispatch)
}

/// Returns the dispatch of the session's agent for a call to LiveKit. It contains private data,
/// because the user cannot read it. With `on_join`, it equals the dispatch of the token, so that an
/// agent that is dispatched again gets the same metadata.
pub(crate) fn dispatch_by_call(setup: &SessionSetup) -> AgentDispatch {
    let session = &setup.session;
    if setup.room_creation != RoomCreation::OnStart {
        return dispatch(setup, None);
    }
    let private = PrivateMetadata {
        modality_profile: setup.modality_profile,
        enabled_panels: session.enabled_panels.as_ref(),
        metadata: session.metadata.as_ref(),
        agent_metadata: &setup.agent_metadata,
    };
    dispatch(setup, Some(private))
}

/// Returns the dispatch in the join token. With `on_start`, the call dispatches the agent and the
/// token names an agent that does not exist, so that a room that the token re-creates admits no
/// other agent.
pub(crate) fn dispatch_by_token(setup: &SessionSetup) -> AgentDispatch {
    if setup.room_creation == RoomCreation::OnJoin {
        dispatch(setup, None)
    } else {
        AgentDispatch::unserved()
    }
}

fn dispatch(setup: &SessionSetup, private: Option<PrivateMetadata<'_>>) -> AgentDispatch {
    let Some(agent) = &setup.agent_name else { return AgentDispatch::unserved() };
    let session = &setup.session;
    let metadata = JobMetadata {
        session_id: session.id,
        organization_id: session.organization_id,
        session_template_id: session.session_template_id,
        user_id: setup.user_id.as_ref(),
        private,
    };
    metadata.dispatch(agent)
}
