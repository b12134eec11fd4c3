//! Acting: what was decided and written down is done in LiveKit.

use std::time::Duration;

use chrono::SecondsFormat;
use greenroom_domain::lifecycle::{Action, State};
use greenroom_domain::{AgentStatus, RoomName};
use greenroom_livekit::{Dispatch, LiveKitError, RoomSettings};
use greenroom_store::{Claim, SessionSetup};
use tokio::time::timeout;

use crate::room_setup::{dispatch_by_call, room_settings};
use crate::{Error, Greenroom};

/// How long all of it may take: less than the lease, so that nobody else acts at the same time.
const ACTION_TIMEOUT: Duration = Duration::from_millis(5_500);

/// The topic under which participants are told that their session ends.
const ENDING_TOPIC: &str = "greenroom.ending";

impl Greenroom {
    /// Does what was decided. What fails is decided again at the next look, for its effect is not
    /// seen then.
    pub(super) async fn act(&self, claim: &Claim, actions: &[Action], state: &State) {
        let act = async {
            for action in actions {
                if let Err(error) = self.act_once(claim, action, state).await {
                    tracing::warn!(session_id = %claim.id, ?action,
                        error = &error as &dyn std::error::Error, "an action failed");
                }
            }
        };
        if timeout(ACTION_TIMEOUT, act).await.is_err() {
            tracing::warn!(session_id = %claim.id, "LiveKit did not do in time what was asked");
        }
    }

    async fn act_once(&self, claim: &Claim, action: &Action, state: &State) -> Result<(), Error> {
        let (rooms, name) = (&self.shared.rooms, &claim.room_name);
        let setup = match action {
            Action::OpenRoom | Action::Dispatch => self.find_setup(claim).await?,
            _ => None,
        };
        let _call = self.shared.livekit_limiter.acquire_for_keeper().await;
        let done = match (action, &setup) {
            (Action::OpenRoom, Some(setup)) => {
                // One that was given up is not asked for again.
                let dispatch = match state.agent_status {
                    AgentStatus::Unavailable => Dispatch::unserved(),
                    _ => dispatch_by_call(setup),
                };
                rooms.create(name, &room_settings(setup, dispatch)).await.map(drop)
            }
            (Action::Dispatch, Some(setup)) => rooms.dispatch(name, &dispatch_by_call(setup)).await,
            // The session was forgotten meanwhile.
            (Action::OpenRoom | Action::Dispatch, None) => Ok(()),
            (Action::DeleteRoom, _) => self.delete_room(name).await,
            (Action::DeleteDispatch(id), _) => rooms.delete_dispatch(name, id).await,
            (Action::AnnounceEnd, _) => self.announce_end(claim, state).await,
        };
        done.map_err(Error::LiveKit)
    }

    /// A room whose node has died is shown for ever, and no other node deletes it; opened again, one
    /// of them has it, and does.
    async fn delete_room(&self, name: &RoomName) -> Result<(), LiveKitError> {
        let rooms = &self.shared.rooms;
        match rooms.delete(name).await {
            Err(LiveKitError::Unavailable(_) | LiveKitError::NoNode(_) | LiveKitError::Timeout) => {
                rooms.create(name, &RoomSettings::closing()).await?;
                rooms.delete(name).await
            }
            deleted => deleted,
        }
    }

    async fn find_setup(&self, claim: &Claim) -> Result<Option<SessionSetup>, Error> {
        let (organization, id) = (claim.organization_id, claim.id);
        self.shared
            .database
            .run_for_keeper(async |db: &mut _| SessionSetup::find(db, organization, id).await)
            .await
    }

    async fn announce_end(&self, claim: &Claim, state: &State) -> Result<(), LiveKitError> {
        let Some(end_by) = state.end_by else { return Ok(()) };
        let ends_at = end_by.to_rfc3339_opts(SecondsFormat::Secs, true);
        let payload = format!(
            r#"{{"session_id":"{}","ends_at":"{ends_at}","reason":"max_duration"}}"#,
            claim.id
        );
        self.shared.rooms.send(&claim.room_name, ENDING_TOPIC, payload.into_bytes()).await
    }
}
