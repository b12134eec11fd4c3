//! Asking for an agent: its name, and what it is told with the job.

use greenroom_domain::{
    AgentName, EnabledPanels, JsonObject, ModalityProfile, OrganizationId, SessionId,
    SessionTemplateId, UserId,
};
use livekit_protocol::RoomAgentDispatch;
use serde::Serialize;

/// One agent asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    agent_name: String,
    metadata: String,
}

impl Dispatch {
    /// Asks for the agent of that name, and hands it `metadata`.
    #[must_use]
    pub fn new(agent: &AgentName, metadata: &JobMetadata<'_>) -> Self {
        Self { agent_name: agent.as_str().to_owned(), metadata: metadata.to_json() }
    }

    /// Asks for nobody: a room that names no agent at all would be given to any unnamed worker.
    #[must_use]
    pub fn unserved() -> Self {
        Self { agent_name: AgentName::UNSERVED.to_owned(), metadata: String::new() }
    }

    #[must_use]
    pub fn agent_name(&self) -> &str {
        &self.agent_name
    }

    /// What the agent is told, as JSON.
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

/// What an agent finds in its job's metadata.
#[derive(Debug, Clone, Serialize)]
pub struct JobMetadata<'a> {
    pub session_id: SessionId,
    pub organization_id: OrganizationId,
    pub session_template_id: SessionTemplateId,
    pub user_id: Option<&'a UserId>,
    /// What a user must not read; absent where the dispatch travels in the user's own token.
    #[serde(flatten)]
    pub private: Option<PrivateMetadata<'a>>,
}

/// The part of a job's metadata that no user sees.
#[derive(Debug, Clone, Serialize)]
pub struct PrivateMetadata<'a> {
    pub modality_profile: Option<ModalityProfile>,
    pub enabled_panels: Option<&'a EnabledPanels>,
    pub metadata: Option<&'a JsonObject>,
    pub agent_metadata: &'a JsonObject,
}

impl JobMetadata<'_> {
    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
