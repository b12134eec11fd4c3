//! Observes a session in LiveKit: its room, participants and dispatches.

use greenroom_domain::lifecycle::{Dispatch, DispatchesNeed, Observation};
use greenroom_livekit::{LiveKitError, RoomList};
use greenroom_store::Claim;

use super::room_nodes::Node;
use crate::Greenroom;
use crate::livekit_limiter::KeeperPermits;

/// The result of observing a listed room.
pub(super) enum Look {
    Observed(Observation),
    /// LiveKit reported recently that the room's node is gone, and was not asked again.
    NodeGone,
    /// A call to LiveKit failed.
    Failed,
    /// Whether the node of a missing room is back could not be asked, because too many nodes do not
    /// respond.
    Postponed,
}

impl Greenroom {
    /// Lists the existing rooms of a batch, usually with one call. `None` means that the call failed,
    /// and that no session is checked until LiveKit lists rooms again.
    pub(super) async fn list_rooms(&self, batch: &[Claim]) -> Option<RoomList> {
        let names: Vec<_> = batch.iter().map(|claim| claim.room_name.clone()).collect();
        let permits = self.shared.livekit.limiter.acquire_for_keeper().await;
        let listed = self.shared.livekit.rooms.list(&names).await;
        drop(permits);
        if let Err(error) = &listed
            && self.shared.breaker.record_failure()
        {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                count = batch.len(),
                "failed to list rooms; no session is checked until LiveKit responds"
            );
        }
        let listed = listed.ok()?;
        for claim in batch {
            if let Some(Err(error)) = listed.get(&claim.room_name) {
                warn_unobserved(claim, error);
            }
        }
        Some(listed)
    }

    /// Observes a session with a listed room.
    ///
    /// `ListParticipants` reads a store that all nodes share, and lists the participants of a dead
    /// node's room indefinitely. Only the node itself knows the dispatches, so `ListDispatch`
    /// detects a dead node. A slow LiveKit is an error and not a dead node.
    pub(super) async fn observe_room(&self, claim: &Claim, sid: &str) -> Look {
        if self.shared.room_nodes.node(&claim.room_name, sid) == Node::Gone {
            return Look::NodeGone;
        }
        self.try_observe_room(claim, sid).await.unwrap_or_else(|error| {
            warn_unobserved(claim, &error);
            Look::Failed
        })
    }

    async fn try_observe_room(&self, claim: &Claim, sid: &str) -> Result<Look, LiveKitError> {
        let permits = self.shared.livekit.limiter.acquire_for_keeper().await;
        let participants = self.shared.livekit.rooms.participants(&claim.room_name).await?;
        drop(permits);
        let limiter = &self.shared.livekit.limiter;
        let is_known = self.shared.room_nodes.node(&claim.room_name, sid) == Node::Present;
        let permits = match claim.session.dispatches_need(&participants) {
            DispatchesNeed::Required => Some(limiter.acquire_for_required_list().await),
            DispatchesNeed::Occasional if !is_known => {
                let permits = limiter.try_acquire_for_occasional_list().await;
                if permits.is_none() && claim.session.state.room_missing_since.is_some() {
                    return Ok(Look::Postponed);
                }
                permits
            }
            DispatchesNeed::Occasional | DispatchesNeed::None => None,
        };
        let dispatches = match permits {
            Some(permits) => match self.list_dispatches(claim, sid, permits).await? {
                Some(dispatches) => Some(dispatches),
                None => return Ok(Look::Observed(Observation::default())),
            },
            None => None,
        };
        Ok(Look::Observed(Observation { room: Some(sid.to_owned()), participants, dispatches }))
    }

    /// Checks again that the node of a missing room is gone, before the session is ended for it.
    pub(super) async fn confirm_node_gone(&self, claim: &Claim, sid: &str) -> Look {
        let limiter = &self.shared.livekit.limiter;
        let Some(permits) = limiter.try_acquire_for_occasional_list().await else {
            return Look::Postponed;
        };
        match self.list_dispatches(claim, sid, permits).await {
            Ok(None) => Look::Observed(Observation::default()),
            // The node is back: the next check observes the room.
            Ok(Some(_)) | Err(_) => Look::Failed,
        }
    }

    /// Lists the dispatches of a room. `None` means that the room's node is gone.
    async fn list_dispatches(
        &self,
        claim: &Claim,
        sid: &str,
        permits: KeeperPermits<'_>,
    ) -> Result<Option<Vec<Dispatch>>, LiveKitError> {
        let (rooms, nodes) = (&self.shared.livekit.rooms, &self.shared.room_nodes);
        let listed = rooms.dispatches(&claim.room_name, claim.agent_name.as_ref()).await;
        drop(permits);
        match listed {
            Ok(dispatches) => {
                nodes.record(&claim.room_name, sid, true);
                Ok(Some(dispatches))
            }
            Err(LiveKitError::NoNode(_)) => {
                nodes.record(&claim.room_name, sid, false);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn warn_unobserved(claim: &Claim, error: &LiveKitError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(session_id = %claim.id, error, "failed to observe room");
}
