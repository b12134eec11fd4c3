//! What one look at LiveKit showed.

use crate::ParticipantIdentity;

/// One look that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// LiveKit's own name for the room, its sid, when it is there.
    pub room: Option<String>,
    pub participants: Vec<Participant>,
    /// What was asked for under the agent's name. None: nobody looked, which is only done while an
    /// agent is wanted and now and then.
    pub dispatches: Option<Vec<Dispatch>>,
}

/// Somebody in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    pub identity: String,
    /// LiveKit's own name for this stay of theirs.
    pub sid: String,
    pub kind: ParticipantKind,
    /// Whether its media is connected: one that is still joining is not there yet.
    pub is_active: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParticipantKind {
    User,
    Agent,
    /// A recorder, a telephone line: nobody a session waits for.
    Other,
}

/// An agent asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    pub id: String,
    /// When, in LiveKit's own count: to tell the older of two.
    pub created_at: i64,
    pub jobs: Vec<Job>,
}

/// What a worker has made of a dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// It is pending or running. LiveKit shows a dead worker's as running, too.
    pub is_live: bool,
    /// As which the agent joins; empty while that is not known.
    pub participant_identity: String,
}

impl Dispatch {
    /// Whether the agent of this identity is one of its jobs.
    pub(super) fn brought(&self, identity: &str) -> bool {
        self.jobs.iter().any(|job| job.participant_identity == identity)
    }
}

impl Observation {
    /// The session's user, when in the room.
    pub(super) fn user(&self, identity: &ParticipantIdentity) -> Option<&Participant> {
        let is_user = |one: &&Participant| {
            one.kind == ParticipantKind::User && one.identity == identity.as_str()
        };
        self.participants.iter().find(is_user)
    }

    /// The listed dispatch that brought this agent.
    pub(super) fn dispatch_of(&self, identity: &str) -> Option<&Dispatch> {
        self.dispatches.iter().flatten().find(|dispatch| dispatch.brought(identity))
    }

    /// The agents that are in the room and connected.
    pub(super) fn agents(&self) -> impl Iterator<Item = &Participant> {
        let is_agent = |one: &&Participant| one.kind == ParticipantKind::Agent && one.is_active;
        self.participants.iter().filter(is_agent)
    }
}
