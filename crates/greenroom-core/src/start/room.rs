//! Opening the room of a started session, and recording what LiveKit responded.

use std::time::Duration;

use greenroom_domain::lifecycle::Fact;
use greenroom_livekit::LiveKitError;
use greenroom_store::{Session, SessionSetup, Subject, record};
use tokio::time::{Instant, timeout_at};

use crate::room_setup::{dispatch_by_call, room_settings};
use crate::{Error, Greenroom, OnLiveKitDown};

/// Time from the beginning of a start within which LiveKit opens the room. The call itself may take
/// 2 s.
const ROOM_DEADLINE: Duration = Duration::from_secs(4);

/// Time from the beginning of a start within which the response of LiveKit is recorded. It is also
/// the maximum duration of a start.
const RECORD_DEADLINE: Duration = Duration::from_millis(4_500);

impl Greenroom {
    /// Opens the room and dispatches the agent, outside any transaction, and records the result.
    /// Returns false if the room is left to the user's join.
    pub(super) async fn open_room(
        &self,
        setup: &SessionSetup,
        may_retry: bool,
        started_at: Instant,
    ) -> Result<bool, Error> {
        let settings = room_settings(setup, dispatch_by_call(setup));
        let open = async {
            let _permit = self.shared.livekit.limiter.acquire().await;
            self.shared.livekit.rooms.create(&setup.session.room_name, &settings).await
        };
        let record_deadline = started_at + RECORD_DEADLINE;
        let opened = timeout_at(started_at + ROOM_DEADLINE, open).await;
        let error = match opened.unwrap_or(Err(LiveKitError::Timeout)) {
            Ok(sid) => {
                self.record_room_opened(&setup.session, sid, record_deadline).await?;
                return Ok(true);
            }
            Err(error) => error,
        };
        tracing::warn!(session_id = %setup.session.id, error = &error as &dyn std::error::Error,
            "failed to open room");
        if self.defer_room_to_join(setup, &error, record_deadline).await {
            return Ok(false);
        }
        if !may_retry {
            self.record_failure(&setup.session, record_deadline).await;
        }
        Err(Error::LiveKit(error))
    }

    /// Leaves the opening of the room to the user's join, if the configuration allows it. Returns
    /// whether the start continues without LiveKit.
    ///
    /// A dispatch with private data cannot be deferred, because the user could read it in the
    /// token. After a refusal by LiveKit, the room is not deferred either, because LiveKit would
    /// also refuse the user.
    async fn defer_room_to_join(
        &self,
        setup: &SessionSetup,
        error: &LiveKitError,
        deadline: Instant,
    ) -> bool {
        let session = &setup.session;
        let has_private_data = session.metadata.is_some() || !setup.agent_metadata.is_empty();
        let is_enabled = self.shared.livekit.on_down == OnLiveKitDown::TokenOnly;
        if !is_enabled || !error.is_outage() || has_private_data {
            return false;
        }
        let (subject, id, now) = (subject_of(session), session.id, self.shared.clock.now());
        let deferred = self
            .shared
            .database
            .run_until(deadline, async |db| record(db, subject, &Fact::RoomDeferred, now).await)
            .await;
        deferred.unwrap_or_else(|error| {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "failed to defer room until join");
            false
        })
    }

    /// Records that the room was opened. If this write fails, the start still succeeds, because the
    /// keeper observes the room later.
    ///
    /// # Errors
    ///
    /// Returns [`Error::SessionOver`] if the session ended while LiveKit opened its room.
    async fn record_room_opened(
        &self,
        session: &Session,
        sid: String,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (subject, id, now) = (subject_of(session), session.id, self.shared.clock.now());
        let (opened, late) = (Fact::RoomOpened { sid: sid.clone() }, Fact::RoomOpenedLate { sid });
        let recorded = self.shared.database.run_until(deadline, async |db| {
            let is_open = record(db, subject, &opened, now).await?;
            if !is_open {
                record(db, subject, &late, now).await?;
            }
            Ok(is_open)
        });
        match recorded.await {
            Ok(true) => {}
            // The session ended while LiveKit opened its room. The keeper deletes the room.
            Ok(false) => {
                self.shared.due.notify_one();
                return Err(Error::SessionOver(id));
            }
            Err(error) => {
                tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                    "failed to record opened room");
            }
        }
        Ok(())
    }

    async fn record_failure(&self, session: &Session, deadline: Instant) {
        let (subject, id, now) = (subject_of(session), session.id, self.shared.clock.now());
        let recorded = self
            .shared
            .database
            .run_until(deadline, async |db| record(db, subject, &Fact::RoomNotOpened, now).await);
        if let Err(error) = recorded.await {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "failed to record session failure");
        }
    }
}

fn subject_of(session: &Session) -> Subject<'static> {
    let (organization, id) = (session.organization_id, session.id);
    Subject::Session { organization, id, end_user: None }
}
