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

    #[must_use]
    pub fn agent_name(&self) -> &str {
        &self.agent_name
    }

    /// The job's metadata as JSON.
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
    pub session_id: SessionId,
    pub organization_id: OrganizationId,
    pub session_template_id: SessionTemplateId,
    pub user_id: Option<&'a UserId>,
    /// Data that the user must not read. `None` if the dispatch is part of the user's token.
    #[serde(flatten)]
    pub private: Option<PrivateMetadata<'a>>,
}

/// The part of a job's metadata that users cannot read.
#[derive(Debug, Clone, Serialize)]
pub struct PrivateMetadata<'a> {
    pub modality_profile: Option<ModalityProfile>,
    pub enabled_panels: Option<&'a EnabledPanels>,
    pub metadata: Option<&'a JsonObject>,
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
