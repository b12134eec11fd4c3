//! Opening the room of a started session, and recording what LiveKit responded.

use std::time::Duration;

use greenroom_domain::RoomCreation;
use greenroom_domain::lifecycle::Fact;
use greenroom_livekit::LiveKitError;
use greenroom_store::{OpenedRoom, Session, SessionKey, StartedRow, Subject, record_own};
use tokio::time::{Instant, timeout_at};

use super::MAX_DURATION;
use super::write::is_token_too_long;
use crate::bulkhead::Work;
use crate::opening_rooms::OpeningRoom;
use crate::room_setup::{dispatch_by_call, room_settings};
use crate::{Error, Greenroom, OnLiveKitDown};

/// Time from the beginning of a start within which LiveKit opens the room. A call times out after
/// 2 s; the rest is for the insert and the wait for a permit.
const ROOM_DEADLINE: Duration = Duration::from_secs(4);

impl Greenroom {
    /// Opens the room and dispatches the agent, outside any transaction, and records the result.
    /// Returns false if LiveKit is to open the room when the user joins.
    ///
    /// `keep_pending` leaves the session open after a failure, because a repeated request may open
    /// the room.
    pub(super) async fn open_room(
        &self,
        started: &StartedRow,
        keep_pending: bool,
        started_at: Instant,
    ) -> Result<bool, Error> {
        let setup = &started.setup;
        let settings = room_settings(setup, dispatch_by_call(setup));
        let opening = self.shared.opening_rooms.begin(&setup.room_name);
        let open = async {
            let _permit = self.shared.livekit.limiter.acquire().await;
            self.shared.livekit.rooms.create(&setup.room_name, &settings).await
        };
        let record_deadline = started_at + MAX_DURATION;
        let opened = timeout_at(started_at + ROOM_DEADLINE, open).await;
        let error = match opened.unwrap_or(Err(LiveKitError::Timeout)) {
            Ok(sid) => {
                self.record_room_opened(&setup.session, opening, sid, record_deadline).await?;
                return Ok(true);
            }
            Err(error) => error,
        };
        tracing::warn!(session_id = %setup.session.id, error = &error as &dyn std::error::Error,
            "failed to open room");
        if self.defer_room_to_join(started, &error, record_deadline).await {
            return Ok(false);
        }
        if !keep_pending {
            self.record_room_not_opened(&setup.session, record_deadline).await;
        }
        Err(Error::LiveKit(error))
    }

    /// Changes the room creation to `on_join`, if `on_livekit_down` is `TokenOnly` and LiveKit is
    /// unavailable. Returns whether it did.
    ///
    /// The room is not deferred if the dispatch contains private data, because the user could read
    /// that data in the token; if the dispatch makes the token too long, because only the token
    /// without it was measured before the commit; or if LiveKit refused the call, because it would
    /// also refuse the user.
    async fn defer_room_to_join(
        &self,
        started: &StartedRow,
        error: &LiveKitError,
        deadline: Instant,
    ) -> bool {
        let setup = &started.setup;
        let session = &setup.session;
        let has_private_data = session.metadata.is_some() || !setup.agent_metadata.is_empty();
        let is_enabled = self.shared.livekit.on_down == OnLiveKitDown::TokenOnly;
        if !is_enabled || !error.is_outage() || has_private_data {
            return false;
        }
        if is_token_too_long(&self.sign_token(&deferred(started.clone()))) {
            return false;
        }
        let (subject, id) = (subject_of(session), session.id);
        let defer = async |db: &mut _| record_own(db, subject, &Fact::RoomDeferred).await;
        let deferred = self.shared.database.run_until(Work::StartStep, deadline, defer).await;
        deferred.unwrap_or_else(|error| {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "failed to defer room until join");
            false
        })
    }

    /// Records that the room was opened, in one statement with the rooms of other starts. If this write
    /// fails, the start still succeeds, because the keeper observes the room later.
    ///
    /// # Errors
    ///
    /// Returns [`Error::SessionOver`] if the session ended while LiveKit opened its room.
    async fn record_room_opened(
        &self,
        session: &Session,
        opening: OpeningRoom<'_>,
        sid: String,
        deadline: Instant,
    ) -> Result<(), Error> {
        let key = SessionKey { organization_id: session.organization_id, id: session.id };
        // Before the write, so that no result of the write can lose the check.
        let holder = self.shared.replica_that_remembers(key.id);
        if holder.is_some() {
            self.schedule_dispatch_check(session).await;
        }
        let room = OpenedRoom { key, sid: sid.clone(), holder };
        match self.record_opened(room, deadline).await {
            Ok(true) => opening.set_recorded(sid),
            // The session ended while LiveKit opened its room. The keeper deletes the room.
            Ok(false) => {
                self.shared.search_requested.notify_one();
                return Err(Error::SessionOver(key.id));
            }
            Err(error) => {
                tracing::warn!(session_id = %key.id, error = &error as &dyn std::error::Error,
                    "failed to record opened room");
            }
        }
        Ok(())
    }

    async fn record_room_not_opened(&self, session: &Session, deadline: Instant) {
        let (subject, id) = (subject_of(session), session.id);
        let recorded = self.shared.database.run_until(Work::StartStep, deadline, async |db| {
            record_own(db, subject, &Fact::RoomNotOpened).await
        });
        match recorded.await {
            Ok(true) => self.shared.search_requested.notify_one(),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                    "failed to record unopened room");
            }
        }
    }
}

/// The session as it is after its room was left to the user's join.
pub(super) fn deferred(mut started: StartedRow) -> StartedRow {
    started.setup.room_creation = RoomCreation::OnJoin;
    started.setup.session.room_creation = RoomCreation::OnJoin.into();
    started
}

fn subject_of(session: &Session) -> Subject<'static> {
    let (organization, id) = (session.organization_id, session.id);
    Subject::Session { organization, id, end_user: None }
}
