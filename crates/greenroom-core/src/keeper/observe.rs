//! Observes a session in LiveKit: its room, participants and dispatches.

use greenroom_domain::lifecycle::{Dispatch, DispatchesNeed, Observation};
use greenroom_livekit::{LiveKitError, RoomList};
use greenroom_store::SessionSnapshot;
use tokio::time::{Instant, timeout_at};

use super::check::Check;
use super::room_nodes::Node;
use crate::Greenroom;
use crate::livekit_limiter::KeeperPermits;

/// The result of observing a listed room.
pub(super) enum Observed {
    Room(Observation),
    /// LiveKit reported recently that the room's node is gone, and was not asked again.
    NodeKnownGone,
    /// A call to LiveKit failed.
    Failed,
    /// The check whether a missing room's node is back was put off, because all calls for occasional
    /// lists are in use.
    Postponed,
}

impl Greenroom {
    /// Lists the existing rooms of a batch, usually with one call. `None` means that the call failed,
    /// and that no session is checked until LiveKit lists rooms again, unless it has recovered since
    /// the call began.
    pub(super) async fn list_rooms(&self, batch: &[Check], deadline: Instant) -> Option<RoomList> {
        if batch.is_empty() {
            return Some(RoomList::new());
        }
        let names: Vec<_> = batch.iter().map(|check| check.snapshot.room_name.clone()).collect();
        let mut began = Instant::now();
        let list = async {
            let _permits = self.shared.livekit.limiter.acquire_for_keeper().await;
            began = Instant::now();
            self.shared.livekit.rooms.list(&names).await
        };
        match timeout_at(deadline, list).await.unwrap_or(Err(LiveKitError::Timeout)) {
            Ok(listed) => {
                self.shared.breaker.record_list();
                for Check { snapshot, .. } in batch {
                    if let Some(Err(error)) = listed.get(&snapshot.room_name) {
                        warn_unobserved(snapshot, error);
                    }
                }
                Some(listed)
            }
            Err(error) => {
                if self.shared.breaker.record_failure(began) {
                    let error = &error as &dyn std::error::Error;
                    let count = batch.len();
                    tracing::warn!(error, count, "failed to list rooms, pausing session checks");
                }
                None
            }
        }
    }

    /// Observes a session with a listed room.
    ///
    /// `ListParticipants` reads a store that all nodes share, and lists the participants of a dead
    /// node's room indefinitely. Only the node itself knows the dispatches, so `ListDispatch`
    /// detects a dead node. A time-out is an error: it does not mean that the node is gone.
    pub(super) async fn observe_room(&self, snapshot: &SessionSnapshot, sid: &str) -> Observed {
        if self.known_node(snapshot) == Node::Gone {
            return Observed::NodeKnownGone;
        }
        self.try_observe_room(snapshot, sid).await.unwrap_or_else(|error| {
            warn_unobserved(snapshot, &error);
            Observed::Failed
        })
    }

    async fn try_observe_room(
        &self,
        snapshot: &SessionSnapshot,
        sid: &str,
    ) -> Result<Observed, LiveKitError> {
        let permits = self.shared.livekit.limiter.acquire_for_keeper().await;
        let participants = self.shared.livekit.rooms.participants(&snapshot.room_name).await?;
        drop(permits);
        let limiter = &self.shared.livekit.limiter;
        let is_node_present = self.known_node(snapshot) == Node::Present;
        let permits = match snapshot.session.dispatches_need(&participants) {
            DispatchesNeed::Required => Some(limiter.acquire_for_required_list().await),
            DispatchesNeed::Occasional if !is_node_present => {
                let permits = limiter.try_acquire_for_occasional_list().await;
                if permits.is_none() && snapshot.session.state.room_missing_since.is_some() {
                    return Ok(Observed::Postponed);
                }
                permits
            }
            DispatchesNeed::Occasional | DispatchesNeed::None => None,
        };
        let dispatches = match permits {
            Some(permits) => match self.list_dispatches(snapshot, permits).await? {
                Some(dispatches) => Some(dispatches),
                None => return Ok(Observed::Room(Observation::default())),
            },
            None => None,
        };
        Ok(Observed::Room(Observation { room: Some(sid.to_owned()), participants, dispatches }))
    }

    /// Asks LiveKit again whether the node of a missing room is gone. A remembered report alone ends
    /// no session.
    pub(super) async fn confirm_node_gone(&self, snapshot: &SessionSnapshot) -> Observed {
        let limiter = &self.shared.livekit.limiter;
        let Some(permits) = limiter.try_acquire_for_occasional_list().await else {
            return Observed::Postponed;
        };
        match self.list_dispatches(snapshot, permits).await {
            Ok(None) => Observed::Room(Observation::default()),
            // The node is back: the next check observes the room.
            Ok(Some(_)) | Err(_) => Observed::Failed,
        }
    }

    /// Lists the dispatches of a room. `None` means that the room's node is gone.
    async fn list_dispatches(
        &self,
        snapshot: &SessionSnapshot,
        permits: KeeperPermits<'_>,
    ) -> Result<Option<Vec<Dispatch>>, LiveKitError> {
        let rooms = &self.shared.livekit.rooms;
        let listed = rooms.dispatches(&snapshot.room_name, snapshot.agent_name.as_ref()).await;
        drop(permits);
        let listed = match listed {
            Ok(dispatches) => Some(dispatches),
            Err(LiveKitError::NoNode(_)) => None,
            Err(error) => return Err(error),
        };
        let user_joined_at = snapshot.session.state.user_joined_at;
        self.shared.room_nodes.record(&snapshot.room_name, user_joined_at, listed.is_some());
        Ok(listed)
    }

    /// Returns what is known about the node of the session's room without a call.
    pub(super) fn known_node(&self, snapshot: &SessionSnapshot) -> Node {
        self.shared.room_nodes.node(&snapshot.room_name, snapshot.session.state.user_joined_at)
    }
}

fn warn_unobserved(snapshot: &SessionSnapshot, error: &LiveKitError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(session_id = %snapshot.id, error, "failed to observe room");
}
