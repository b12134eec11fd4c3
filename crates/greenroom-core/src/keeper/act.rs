//! Executes the actions of a committed decision in LiveKit.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use greenroom_domain::lifecycle::{Action, Fact, JOB_ASSIGNMENT_TIMEOUT, State};
use greenroom_domain::{RoomName, SessionId};
use greenroom_livekit::{AgentDispatch, LiveKitError, RoomSettings};
use greenroom_store::{SessionSetup, SessionSnapshot, Subject, record_own};
use tokio::time::{Instant, timeout_at};

use super::room_nodes::Node;
use crate::room_setup::{dispatch_by_call, room_settings};
use crate::{Error, Greenroom};

/// Time limit for all actions of a decision, from the beginning of its commit. It is shorter than
/// [`JOB_ASSIGNMENT_TIMEOUT`], so that no other keeper dispatches the agent again meanwhile, if the
/// bucket of the session moves.
pub(super) const ACTION_TIMEOUT: Duration = Duration::from_millis(5_500);

const _: () =
    assert!(ACTION_TIMEOUT.as_secs() < JOB_ASSIGNMENT_TIMEOUT.num_seconds().unsigned_abs());

/// The topic of the data message that announces the end of a session to its participants.
const ENDING_TOPIC: &str = "greenroom.ending";

impl Greenroom {
    /// Executes the actions of a decision. A failed action is not retried here: the next
    /// observation does not show its effect, so the action is decided again.
    pub(super) async fn act(
        &self,
        snapshot: &SessionSnapshot,
        actions: &[Action],
        state: &State,
        deadline: Instant,
    ) {
        let execute_all = async {
            for action in actions {
                if let Err(error) = self.execute(snapshot, action, state, deadline).await {
                    // The next check must list the dispatches to decide the action again.
                    self.shared.room_nodes.forget(&snapshot.room_name);
                    tracing::warn!(session_id = %snapshot.id, ?action,
                        error = &error as &dyn std::error::Error, "failed to execute action");
                }
            }
        };
        if timeout_at(deadline, execute_all).await.is_err() {
            self.shared.room_nodes.forget(&snapshot.room_name);
            tracing::warn!(session_id = %snapshot.id, count = actions.len(),
                "failed to finish actions in time");
        }
    }

    async fn execute(
        &self,
        snapshot: &SessionSnapshot,
        action: &Action,
        state: &State,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (rooms, name) = (&self.shared.livekit.rooms, &snapshot.room_name);
        let setup = match action {
            Action::OpenRoom { .. } | Action::Dispatch => self.find_setup(snapshot).await?,
            _ => None,
        };
        let permits = self.shared.livekit.limiter.acquire_for_keeper().await;
        // A time-out does not stop what is ready, and a process that was stopped comes back late.
        if Instant::now() >= deadline {
            return Err(Error::LiveKit(LiveKitError::Timeout));
        }
        let result = match (action, &setup) {
            (Action::OpenRoom { dispatches_agent }, Some(setup)) => {
                let dispatch = if *dispatches_agent {
                    dispatch_by_call(setup)
                } else {
                    AgentDispatch::unserved()
                };
                let created = rooms.create(name, &room_settings(setup, dispatch)).await;
                // The room has a node again.
                self.shared.room_nodes.forget(name);
                created.map(drop)
            }
            (Action::Dispatch, Some(setup)) => rooms.dispatch(name, &dispatch_by_call(setup)).await,
            // The session has been deleted meanwhile.
            (Action::OpenRoom { .. } | Action::Dispatch, None) => Ok(()),
            (Action::DeleteRoom, _) => {
                self.delete_room(name, self.known_node(snapshot) == Node::Gone).await
            }
            (Action::DeleteDispatch(id), _) => rooms.delete_dispatch(name, id).await,
            (Action::AnnounceEnd, _) => self.announce_end(snapshot, state).await,
        };
        drop(permits);
        result.map_err(Error::LiveKit)?;
        match action {
            Action::AnnounceEnd => self.record_announcement(snapshot).await,
            _ => Ok(()),
        }
    }

    /// Deletes a room. LiveKit keeps listing a dead node's room, and no other node can delete it.
    /// Creating the room again places it on a live node, which then deletes it.
    async fn delete_room(&self, name: &RoomName, is_node_gone: bool) -> Result<(), LiveKitError> {
        let rooms = &self.shared.livekit.rooms;
        if !is_node_gone {
            match rooms.delete(name).await {
                Err(error) if error.is_outage() => {}
                deleted => return deleted,
            }
        }
        rooms.create(name, &RoomSettings::closing()).await?;
        rooms.delete(name).await
    }

    async fn find_setup(&self, snapshot: &SessionSnapshot) -> Result<Option<SessionSetup>, Error> {
        let (organization, id) = (snapshot.organization_id, snapshot.id);
        self.shared
            .database
            .run_for_keeper(async |db: &mut _| SessionSetup::find(db, organization, id).await)
            .await
    }

    async fn announce_end(
        &self,
        snapshot: &SessionSnapshot,
        state: &State,
    ) -> Result<(), LiveKitError> {
        let Some(end_by) = state.end_by else { return Ok(()) };
        let message = ending_message(snapshot.id, end_by).into_bytes();
        self.shared.livekit.rooms.send(&snapshot.room_name, ENDING_TOPIC, message).await
    }

    /// Records that the end was announced. Without it, the next check announces the end again.
    async fn record_announcement(&self, snapshot: &SessionSnapshot) -> Result<(), Error> {
        let subject = Subject::Session {
            organization: snapshot.organization_id,
            id: snapshot.id,
            end_user: None,
        };
        let record = async |db: &mut _| record_own(db, subject, &Fact::EndAnnounced).await;
        self.shared.database.run_for_keeper(record).await.map(drop)
    }
}

/// The message to the participants, which is part of the API.
fn ending_message(id: SessionId, end_by: DateTime<Utc>) -> String {
    let ends_at = end_by.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!(r#"{{"session_id":"{id}","ends_at":"{ends_at}","reason":"max_duration"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ending_message_has_the_documented_fields() {
        let id = "0193b8a0-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(
            ending_message(id, DateTime::UNIX_EPOCH),
            r#"{"session_id":"0193b8a0-0000-7000-8000-000000000001","ends_at":"1970-01-01T00:00:00Z","reason":"max_duration"}"#
        );
    }
}
