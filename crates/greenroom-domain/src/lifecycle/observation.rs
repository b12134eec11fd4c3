//! An observation of a session's room in LiveKit: room, participants and dispatches.

use crate::ParticipantIdentity;

/// A successful observation of a session's room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// LiveKit's sid of the room. `None` means that the room does not exist.
    pub room: Option<String>,
    /// All participants in the room, including those of other programs.
    pub participants: Vec<Participant>,
    /// All dispatches in the room. `None` means that they were not listed. A pending session
    /// without an agent does not need them.
    pub dispatches: Option<Vec<Dispatch>>,
}

/// A participant in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// LiveKit's identity of the participant, unique in the room.
    pub identity: String,
    /// LiveKit's sid of the participant. A participant who rejoins gets a new sid.
    pub sid: String,
    /// The kind, derived from LiveKit's kind and the participant's attributes.
    pub kind: ParticipantKind,
    /// Whether the participant is connected. `false` means that it is still joining.
    pub is_active: bool,
}

/// The kind of a participant, as far as the lifecycle distinguishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParticipantKind {
    /// A participant of LiveKit's kind STANDARD. It need not be the session's user.
    User,
    /// A participant of LiveKit's kind AGENT that is not an avatar.
    Agent,
    /// Neither a user nor an agent, such as a recorder, a telephone line, or an agent's avatar.
    Other,
}

/// A dispatch of an agent to the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// LiveKit's id of the dispatch, by which it is deleted.
    pub id: String,
    /// The origin, which decides whether Greenroom may delete the dispatch.
    pub owner: DispatchOwner,
    /// Time of creation as LiveKit reports it. Used only to find the oldest dispatch.
    pub created_at: i64,
    /// The jobs that workers accepted. LiveKit lists a job up to five seconds late.
    pub jobs: Vec<Job>,
}

/// The origin of a dispatch, derived from the agent's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DispatchOwner {
    /// The dispatch has the session's agent name.
    Session,
    /// The dispatch has no agent name. LiveKit adds it to a room that was not opened by a call or a
    /// token of Greenroom, for example by an agent that returns after a restart of LiveKit.
    Unnamed,
    /// The dispatch has another agent name. Another program created it.
    Other,
    /// The dispatch has the reserved name that no worker serves.
    Unserved,
}

/// A job: a dispatch that a worker has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whether the job is pending or running. LiveKit also lists a dead worker's job as running.
    pub is_live: bool,
    /// Identity with which the agent joins. Empty if LiveKit does not report it yet.
    pub participant_identity: String,
}

impl Dispatch {
    /// Returns whether one of the jobs is the agent with this identity.
    pub(super) fn has_job_for(&self, identity: &str) -> bool {
        self.jobs.iter().any(|job| job.participant_identity == identity)
    }
}

impl Observation {
    /// Returns the session's user, if the user is in the room.
    pub(super) fn user(&self, identity: &ParticipantIdentity) -> Option<&Participant> {
        let is_user = |participant: &&Participant| {
            participant.kind == ParticipantKind::User && participant.identity == identity.as_str()
        };
        self.participants.iter().find(is_user)
    }

    /// Returns the dispatches of the session's agent.
    pub(super) fn own_dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        self.dispatches_of(DispatchOwner::Session)
    }

    pub(super) fn dispatches_of(&self, owner: DispatchOwner) -> impl Iterator<Item = &Dispatch> {
        self.dispatches.iter().flatten().filter(move |dispatch| dispatch.owner == owner)
    }

    /// Returns the connected agents that may be the session's. Agents without a listed dispatch are
    /// included: LiveKit lists a job late, and never lists an agent that outlived its node.
    pub(super) fn agents(&self) -> impl Iterator<Item = &Participant> {
        let is_agent = |participant: &&Participant| {
            participant.kind == ParticipantKind::Agent
                && participant.is_active
                && !self.is_foreign_agent(&participant.identity)
        };
        self.participants.iter().filter(is_agent)
    }

    /// Returns whether an agent without a listed job may be foreign: a foreign or unnamed dispatch
    /// has no listed job yet. LiveKit lists a job up to five seconds after its agent joined.
    pub(super) fn may_contain_foreign_agents(&self) -> bool {
        let mut foreign = self
            .dispatches_of(DispatchOwner::Other)
            .chain(self.dispatches_of(DispatchOwner::Unnamed));
        foreign.any(|dispatch| dispatch.jobs.is_empty())
    }

    /// Returns whether a job of another owner's dispatch brought the agent with this identity.
    pub(super) fn is_foreign_agent(&self, identity: &str) -> bool {
        let is_foreign = |dispatch: &&Dispatch| dispatch.owner != DispatchOwner::Session;
        let mut foreign = self.dispatches.iter().flatten().filter(is_foreign);
        foreign.any(|dispatch| dispatch.has_job_for(identity))
    }
}
