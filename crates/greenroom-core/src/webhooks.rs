//! LiveKit's webhooks: each becomes one statement, and decides nothing.

use greenroom_domain::lifecycle::ParticipantKind;
use greenroom_livekit::webhook::{ParticipantEvent, Webhook, WebhookEvent};
use greenroom_store::Fact;

use crate::{Error, Greenroom};

/// LiveKit's word for a participant that made room for another of its identity: a page that was
/// reloaded, an agent that connected anew.
const DUPLICATE_IDENTITY: &str = "DUPLICATE_IDENTITY";

impl Greenroom {
    /// Takes in a webhook, by the value of its `Authorization` header and its raw body. When this
    /// returns, what it says is committed; what is of no session's room changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidWebhook`] when LiveKit did not send this, else when the database fails.
    pub async fn receive_webhook(&self, authorization: &str, body: &[u8]) -> Result<(), Error> {
        let verified = self.shared.webhooks.verify(authorization, body);
        let webhook = verified.map_err(Error::InvalidWebhook)?;
        let Webhook { room: Some(room), at: Some(at), event } = webhook else { return Ok(()) };
        let Some(fact) = fact(event) else { return Ok(()) };
        let tell = async |db: &mut _| fact.record(db, &room, at).await;
        if self.shared.database.run(tell).await? {
            self.shared.due.notify_one();
        }
        Ok(())
    }
}

/// What of a webhook is written down.
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
