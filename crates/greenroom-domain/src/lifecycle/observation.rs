//! What one look at LiveKit showed.

use crate::ParticipantIdentity;

/// One look that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// LiveKit's own name for the room, its sid, when it is there.
    pub room: Option<String>,
    pub participants: Vec<Participant>,
    /// Every agent that was asked for. None: nobody looked, for a session without an agent while no
    /// user has come.
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
    pub owner: DispatchOwner,
    /// When, in LiveKit's own count: to tell the older of two.
    pub created_at: i64,
    pub jobs: Vec<Job>,
}

/// DispatchOwner agent was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DispatchOwner {
    /// The session's, by the name that its template gives.
    Session,
    /// Anybody's: LiveKit asks so for a room that was opened without a call or a token of ours, as
    /// by an agent that comes back after a restart.
    Unnamed,
    /// Somebody else's, who has asked for it under another name.
    Other,
    /// Nobody's: by the reserved name that no worker has.
    Unserved,
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
    pub(super) fn has_job_for(&self, identity: &str) -> bool {
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

    /// What was asked for on the session's behalf.
    pub(super) fn own_dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        self.dispatches_of(DispatchOwner::Session)
    }

    pub(super) fn dispatches_of(&self, owner: DispatchOwner) -> impl Iterator<Item = &Dispatch> {
        self.dispatches.iter().flatten().filter(move |dispatch| dispatch.owner == owner)
    }

    /// The session's agents that are in the room and connected. One whose dispatch is not shown
    /// counts: LiveKit shows that late, and an agent that outlived its node is never shown.
    pub(super) fn agents(&self) -> impl Iterator<Item = &Participant> {
        let is_agent = |one: &&Participant| {
            one.kind == ParticipantKind::Agent
                && one.is_active
                && !self.is_foreign_agent(&one.identity)
        };
        self.participants.iter().filter(is_agent)
    }

    /// Whether an agent that is not listed may be somebody else's: one of another name was asked
    /// for, and its job is not shown, which it is some seconds after the agent itself.
    pub(super) fn may_contain_foreign_agents(&self) -> bool {
        let mut others = self
            .dispatches_of(DispatchOwner::Other)
            .chain(self.dispatches_of(DispatchOwner::Unnamed));
        others.any(|dispatch| dispatch.jobs.is_empty())
    }

    /// Whether the agent of this identity is known to be somebody else's.
    pub(super) fn is_foreign_agent(&self, identity: &str) -> bool {
        let others =
            self.dispatches.iter().flatten().filter(|one| one.owner != DispatchOwner::Session);
        others.into_iter().any(|dispatch| dispatch.has_job_for(identity))
    }
}
