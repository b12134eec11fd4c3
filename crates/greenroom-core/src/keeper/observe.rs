//! Observes a session in LiveKit: its room, participants and dispatches.

use futures_util::future::join;
use greenroom_domain::SessionStatus;
use greenroom_domain::lifecycle::{Dispatch, Observation, Participant};
use greenroom_livekit::{LiveKitError, RoomList};
use greenroom_store::Claim;

use crate::Greenroom;

impl Greenroom {
    /// Lists the existing rooms of a batch, usually with one call. `None` means that it failed.
    pub(super) async fn list_rooms(&self, batch: &[Claim]) -> Option<RoomList> {
        let names: Vec<_> = batch.iter().map(|claim| claim.room_name.clone()).collect();
        let _permits = self.shared.livekit.limiter.acquire_for_keeper().await;
        let listed = self.shared.livekit.rooms.list(&names).await;
        let listed = listed.inspect_err(|error| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                count = batch.len(),
                "failed to list rooms"
            );
        });
        let listed = listed.ok()?;
        for claim in batch {
            if let Some(Err(error)) = listed.get(&claim.room_name) {
                warn_unobserved(claim, error);
            }
        }
        Some(listed)
    }

    /// Observes a session with a listed room. `None` means that a call to LiveKit failed.
    pub(super) async fn observe_room(&self, claim: &Claim, sid: String) -> Option<Observation> {
        match self.room_contents(claim).await {
            Ok(Some((participants, dispatches))) => {
                Some(Observation { room: Some(sid), participants, dispatches })
            }
            Ok(None) => Some(Observation::default()),
            Err(error) => {
                warn_unobserved(claim, &error);
                None
            }
        }
    }

    /// Returns the participants of the room and, if the decision needs them, its dispatches. `None`
    /// means that the room's node is gone.
    ///
    /// `ListParticipants` reads a store that all nodes share, and lists the participants of a dead
    /// node's room indefinitely. Only the node itself knows the dispatches, so `ListDispatch`
    /// detects a dead node. A slow LiveKit is an error and not a dead node.
    async fn room_contents(&self, claim: &Claim) -> Result<Option<RoomContents>, LiveKitError> {
        let participants = async {
            let _permits = self.shared.livekit.limiter.acquire_for_keeper().await;
            self.shared.livekit.rooms.participants(&claim.room_name).await
        };
        if claim.agent_name.is_none() && claim.session.state.status != SessionStatus::Active {
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
        let _permits = self.shared.livekit.limiter.acquire_for_keeper().await;
        self.shared.livekit.rooms.dispatches(&claim.room_name, claim.agent_name.as_ref()).await
    }
}

fn warn_unobserved(claim: &Claim, error: &LiveKitError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(session_id = %claim.id, error, "failed to observe room");
}

/// The participants of a room, and its dispatches if they were listed.
type RoomContents = (Vec<Participant>, Option<Vec<Dispatch>>);
