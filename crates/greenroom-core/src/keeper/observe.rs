//! Looking: what LiveKit shows of a session.

use std::collections::HashMap;

use chrono::TimeDelta;
use futures_util::future::join;
use greenroom_domain::lifecycle::{
    AgentPolicy, Dispatch, Observation, Participant, Session, SessionPolicy,
};
use greenroom_domain::{RoomName, SessionStatus};
use greenroom_livekit::LiveKitError;
use greenroom_store::Claim;

use crate::Greenroom;

/// What the list of rooms shows of a session.
pub(super) enum RoomLookup {
    /// All that has to be known; none when there is no list.
    Observed(Option<Observation>),
    /// That its room is there, by this sid.
    NeedsDetails(String),
}

/// What there is to see without another call: whether a room that shall be gone is, and that one is
/// not there.
pub(super) fn look_up_room(claim: &Claim, rooms: Option<&HashMap<RoomName, String>>) -> RoomLookup {
    let Some(rooms) = rooms else { return RoomLookup::Observed(None) };
    match rooms.get(&claim.room_name) {
        Some(sid) if !claim.state.is_over() => RoomLookup::NeedsDetails(sid.clone()),
        room => RoomLookup::Observed(Some(Observation {
            room: room.cloned(),
            ..Observation::default()
        })),
    }
}

impl Greenroom {
    /// The session, as far as its lifecycle is concerned.
    pub(super) fn lifecycle_session(&self, claim: &Claim) -> Session {
        let seconds = |seconds: i32| TimeDelta::seconds(seconds.into());
        let deadline = claim.agent_deadline.unwrap_or(self.shared.agent_deadline);
        let agent = claim.agent_name.as_ref().map(|_| AgentPolicy {
            deadline: seconds(deadline.get()),
            required: claim.agent_required,
            on_hangup: claim.on_agent_hangup,
        });
        Session {
            policy: SessionPolicy {
                room_creation: claim.room_creation,
                agent,
                reconnect_window: seconds(claim.reconnect_window.get()),
                max_duration: seconds(claim.max_duration.get()),
                reconcile_every: seconds(self.shared.reconcile_every.get()),
            },
            participant_identity: claim.participant_identity.clone(),
            created_at: claim.created_at,
            join_by: claim.join_by,
            token_expiry: claim.token_expiry,
            state: claim.state.clone(),
        }
    }

    /// The rooms of a batch that are there, by one call; none when it failed.
    pub(super) async fn list_rooms(&self, batch: &[Claim]) -> Option<HashMap<RoomName, String>> {
        let names: Vec<_> = batch.iter().map(|claim| claim.room_name.clone()).collect();
        let _call = self.shared.livekit_limiter.acquire_for_keeper().await;
        let listed = self.shared.rooms.list(&names).await;
        let listed = listed.inspect_err(|error| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                sessions = batch.len(),
                "LiveKit did not show its rooms"
            );
        });
        listed.ok()
    }

    /// What LiveKit shows of a session whose room is there; none when it did not answer.
    pub(super) async fn observe_room(&self, claim: &Claim, sid: String) -> Option<Observation> {
        match self.room_contents(claim).await {
            Ok(Some((participants, dispatches))) => {
                Some(Observation { room: Some(sid), participants, dispatches })
            }
            Ok(None) => Some(Observation::default()),
            Err(error) => {
                tracing::warn!(session_id = %claim.id, error = &error as &dyn std::error::Error,
                    "LiveKit did not show a room");
                None
            }
        }
    }

    /// Who is in the room, and who is asked for. None when the node that had the room is gone: the
    /// participants come from a store that all nodes share, and would be shown for ever, and only
    /// the node itself knows of dispatches. A LiveKit that is merely slow shows nothing at all.
    async fn room_contents(&self, claim: &Claim) -> Result<Option<RoomContents>, LiveKitError> {
        let participants = async {
            let _call = self.shared.livekit_limiter.acquire_for_keeper().await;
            self.shared.rooms.participants(&claim.room_name).await
        };
        if claim.agent_name.is_none() && claim.state.status != SessionStatus::Active {
            return Ok(Some((participants.await?, None)));
        }
        let (participants, dispatches) = join(participants, self.dispatches(claim)).await;
        let participants = participants?;
        match dispatches {
            Ok(dispatches) => Ok(Some((participants, Some(dispatches)))),
            Err(LiveKitError::NoNode(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn dispatches(&self, claim: &Claim) -> Result<Vec<Dispatch>, LiveKitError> {
        let _call = self.shared.livekit_limiter.acquire_for_keeper().await;
        self.shared.rooms.dispatches(&claim.room_name, claim.agent_name.as_ref()).await
    }
}

/// What is in a room.
type RoomContents = (Vec<Participant>, Option<Vec<Dispatch>>);
