//! LiveKit's webhooks: each is verified and recorded with one statement. A webhook decides nothing.

use greenroom_domain::lifecycle::{Fact, ParticipantKind};
use greenroom_livekit::webhook::{ParticipantEvent, Webhook, WebhookEvent};
use greenroom_store::{Subject, record};

use tokio::time::Instant;

use crate::task::complete;
use crate::{Error, Greenroom};

/// The disconnect reason of a participant that was replaced by another with the same identity, such
/// as a user who reloaded the page or an agent that reconnected.
const DUPLICATE_IDENTITY: &str = "DUPLICATE_IDENTITY";

impl Greenroom {
    /// Verifies and records a webhook of LiveKit.
    ///
    /// `authorization` is the value of the `Authorization` header, and `body` is the raw body. When
    /// this method returns, the event is committed and the keeper checks the session, unless the event
    /// is the opening of a room that a start of this process has recorded: the keeper then checks the
    /// session as that start has scheduled. An event of a room that belongs to no session is ignored.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidWebhook`] if LiveKit did not send this webhook. Returns
    /// [`Error::Store`] if the database fails, and [`Error::Overloaded`] if no database connection
    /// becomes free in time.
    pub async fn receive_webhook(&self, authorization: &str, body: &[u8]) -> Result<(), Error> {
        let verified = self.shared.livekit.webhooks.verify(authorization, body);
        let webhook = verified.map_err(Error::InvalidWebhook)?;
        *self.shared.latest_webhook.lock() = Some(Instant::now());
        let Webhook { room: Some(room), at: Some(at), event } = webhook else { return Ok(()) };
        let Some(fact) = fact(event) else { return Ok(()) };
        if let Fact::RoomStarted { sid } = &fact
            && self.shared.opening_rooms.has_recorded(&room, sid).await
        {
            // The start has recorded the same event, and scheduled the check.
            return Ok(());
        }
        let greenroom = self.clone();
        // A recorded fact must be followed by its check.
        complete(async move {
            let holder = greenroom.shared.remembering_replica();
            let record =
                async |db: &mut _| record(db, Subject::Room(&room), &fact, at, holder).await;
            let recorded = greenroom.shared.database.run_for_webhook(record).await?;
            match recorded {
                Some(recorded) => greenroom.schedule_after_fact(recorded).await,
                None => Ok(()),
            }
        })
        .await
    }
}

/// Converts an event to the fact that is recorded. `None` means that nothing is recorded.
fn fact(event: WebhookEvent) -> Option<Fact> {
    match event {
        WebhookEvent::RoomStarted { sid } => Some(Fact::RoomStarted { sid }),
        WebhookEvent::RoomFinished => Some(Fact::RoomFinished),
        WebhookEvent::Joined(ParticipantEvent { identity, sid, kind, .. }) => match kind {
            ParticipantKind::User => Some(Fact::UserJoined { identity, sid }),
            ParticipantKind::Agent => Some(Fact::AgentJoined { identity, sid }),
            ParticipantKind::Other => None,
        },
        WebhookEvent::Left(ParticipantEvent { identity, sid, kind, reason }) => match kind {
            _ if reason.as_deref() == Some(DUPLICATE_IDENTITY) => None,
            ParticipantKind::User => Some(Fact::UserLeft { identity, sid, reason }),
            ParticipantKind::Agent => Some(Fact::AgentLeft { identity, sid, reason }),
            ParticipantKind::Other => None,
        },
        WebhookEvent::Other => None,
    }
}
