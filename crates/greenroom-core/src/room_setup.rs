//! What a session's room is opened with, by a call or by a token.

use greenroom_domain::RoomCreation;
use greenroom_livekit::dispatch::PrivateMetadata;
use greenroom_livekit::{Dispatch, JobMetadata, RoomSettings};
use greenroom_store::SessionSetup;

/// How long the room waits for whom; the process's clock is not asked.
pub(crate) fn room_settings(setup: &SessionSetup, dispatch: Dispatch) -> RoomSettings {
    RoomSettings::new(setup.join_within.unsigned_abs(), setup.reconnect_window, dispatch)
}

/// The agent as a call asks for it: nobody but LiveKit reads this. One that first came by the user's
/// token is told the same when it is asked for again.
pub(crate) fn dispatch_by_call(setup: &SessionSetup) -> Dispatch {
    let session = &setup.session;
    if session.room_creation == RoomCreation::OnJoin {
        return dispatch(setup, None);
    }
    let private = PrivateMetadata {
        modality_profile: session.modality_profile,
        enabled_panels: session.enabled_panels.as_ref(),
        metadata: session.metadata.as_ref(),
        agent_metadata: &setup.agent_metadata,
    };
    dispatch(setup, Some(private))
}

/// The agent as a token asks for it. A room has one owner of its dispatch: where the call asks,
/// the token names nobody, so that a room it re-creates admits no stranger.
pub(crate) fn dispatch_by_token(setup: &SessionSetup) -> Dispatch {
    match setup.session.room_creation {
        RoomCreation::OnStart => Dispatch::unserved(),
        RoomCreation::OnJoin => dispatch(setup, None),
    }
}

fn dispatch(setup: &SessionSetup, private: Option<PrivateMetadata<'_>>) -> Dispatch {
    let Some(agent) = &setup.agent_name else { return Dispatch::unserved() };
    let session = &setup.session;
    let metadata = JobMetadata {
        session_id: session.id,
        organization_id: session.organization_id,
        session_template_id: session.session_template_id,
        user_id: session.user_id.as_ref(),
        private,
    };
    Dispatch::new(agent, &metadata)
}
