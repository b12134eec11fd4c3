//! The clock, random ids and random names. No other file reads the clock or draws random numbers.
//!
//! This clock dates ids and room names. Every other time is PostgreSQL's `now()`, so that a process
//! with a wrong clock follows the same rules as the others.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, SubsecRound, Utc};
use greenroom_domain::{
    ParticipantIdentity, RoomName, SessionId, SessionTemplateId, SuffixSequence,
};
use greenroom_store::ReplicaId;

/// The clock that dates ids and room names.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The system clock.
    System,
    /// A fixed time, for tests.
    Fixed(DateTime<Utc>),
}

impl Clock {
    /// Returns the current time. The system clock is truncated to milliseconds, the precision of
    /// ids.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the only file that may read the clock")]
    pub fn now(self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now().trunc_subsecs(3),
            Self::Fixed(at) => at,
        }
    }
}

/// Generates the room names of this process, all of them different.
#[derive(Debug)]
pub(crate) struct RoomNameGenerator {
    sequence: SuffixSequence,
    next: AtomicU32,
}

impl RoomNameGenerator {
    /// Creates a generator with a random sequence, so that the names of two processes differ.
    pub(crate) fn random() -> Self {
        let sequence = SuffixSequence::new(rand::random(), rand::random());
        Self { sequence, next: AtomicU32::new(0) }
    }

    /// Returns the next room name. A suffix repeats after 2^24 names; by then, the second in the
    /// name has passed.
    pub(crate) fn next_name(&self, at: DateTime<Utc>) -> RoomName {
        RoomName::new(at, self.sequence.suffix(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

pub(crate) fn session_id(at: DateTime<Utc>) -> SessionId {
    SessionId::new(at, rand::random())
}

pub(crate) fn template_id(at: DateTime<Utc>) -> SessionTemplateId {
    SessionTemplateId::new(at, rand::random())
}

pub(crate) fn replica_id() -> ReplicaId {
    ReplicaId(uuid::Builder::from_random_bytes(rand::random()).into_uuid())
}

pub(crate) fn guest_identity() -> ParticipantIdentity {
    ParticipantIdentity::guest(rand::random())
}
