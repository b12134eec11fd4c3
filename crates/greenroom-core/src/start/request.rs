//! The request of a start.

use greenroom_domain::{
    AgentName, IdempotencyKey, JsonObject, ParticipantAttributes, ParticipantName,
    SessionTemplateId, UserId,
};
/// A request to start a session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartRequest {
    /// The template of the session. The session keeps the version that is current at its start.
    pub session_template_id: SessionTemplateId,
    /// The user who will join. `None` means the end user who calls, or a guest if a backend calls.
    pub user_id: Option<UserId>,
    /// Data that is stored with the session and given to the agent. Only backends may set it.
    pub metadata: Option<JsonObject>,
    /// The user's name in the room. `None` means the `user_id`.
    pub participant_name: Option<ParticipantName>,
    /// The user's attributes in the room. Other participants can read them.
    pub participant_attributes: Option<ParticipantAttributes>,
    /// The agent that the caller expects. The start fails if the template has another agent. `None`
    /// accepts any template.
    pub agent_name: Option<AgentName>,
    /// A repeated request with the same key returns the same session.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl StartRequest {
    /// Creates a request that only names its template.
    #[must_use]
    pub fn new(session_template_id: SessionTemplateId) -> Self {
        Self {
            session_template_id,
            user_id: None,
            metadata: None,
            participant_name: None,
            participant_attributes: None,
            agent_name: None,
            idempotency_key: None,
        }
    }
}
