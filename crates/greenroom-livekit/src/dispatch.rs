//! The dispatch of an agent: its name and the metadata of its job.

use greenroom_domain::{
    AgentName, EnabledPanels, JsonObject, ModalityProfile, OrganizationId, SessionId,
    SessionTemplateId, UserId,
};
use livekit_protocol::RoomAgentDispatch;
use serde::Serialize;

/// The dispatch of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDispatch {
    agent_name: String,
    metadata: String,
}

impl AgentDispatch {
    /// Dispatches the reserved agent that no worker serves. LiveKit would assign a room without a
    /// named agent to any unnamed worker.
    #[must_use]
    pub fn unserved() -> Self {
        Self { agent_name: AgentName::UNSERVED.to_owned(), metadata: String::new() }
    }

    /// Returns the name with which the workers of the agent register.
    #[must_use]
    pub fn agent_name(&self) -> &str {
        &self.agent_name
    }

    /// Returns the job's metadata as JSON. Empty for [`Self::unserved`].
    #[must_use]
    pub fn metadata(&self) -> &str {
        &self.metadata
    }

    pub(crate) fn to_proto(&self) -> RoomAgentDispatch {
        RoomAgentDispatch {
            agent_name: self.agent_name.clone(),
            metadata: self.metadata.clone(),
            ..RoomAgentDispatch::default()
        }
    }
}

/// The metadata of an agent's job.
#[derive(Debug, Clone, Serialize)]
pub struct JobMetadata<'a> {
    /// The session whose room the agent joins.
    pub session_id: SessionId,
    /// The organization that owns the session.
    pub organization_id: OrganizationId,
    /// The template from which the session was started.
    pub session_template_id: SessionTemplateId,
    /// The id of the user. `None` means that the user is a guest.
    pub user_id: Option<&'a UserId>,
    /// Data that the user must not read. `None` if the dispatch is part of the user's token.
    #[serde(flatten)]
    pub private: Option<PrivateMetadata<'a>>,
}

/// The part of a job's metadata that users cannot read.
#[derive(Debug, Clone, Serialize)]
pub struct PrivateMetadata<'a> {
    /// The tracks that the user may publish. `None` means all.
    pub modality_profile: Option<ModalityProfile>,
    /// The panels that the client shows. `None` leaves the choice to the client.
    pub enabled_panels: Option<&'a EnabledPanels>,
    /// The session's data from the caller. `None` means that the caller sent no data.
    pub metadata: Option<&'a JsonObject>,
    /// The template's data for the agent. May be empty.
    pub agent_metadata: &'a JsonObject,
}

impl JobMetadata<'_> {
    /// Dispatches the agent with this name. The agent receives the metadata with its job.
    #[must_use]
    pub fn dispatch(&self, agent: &AgentName) -> AgentDispatch {
        let metadata = serde_json::to_string(self).unwrap_or_default();
        AgentDispatch { agent_name: agent.as_str().to_owned(), metadata }
    }
}
