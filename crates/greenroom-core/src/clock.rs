//! The one place that reads the clock and draws random numbers.
//!
//! The process's clock serves tokens, room names and ids. Deadlines are PostgreSQL's.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, SubsecRound, Utc};
use greenroom_domain::{
    ParticipantIdentity, RoomName, SessionId, SessionTemplateId, SuffixSequence,
};

/// Where the time comes from.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The machine's.
    System,
    /// A time that stands still, for tests.
    Fixed(DateTime<Utc>),
}

impl Clock {
    /// Now, to the millisecond, which is what ids keep of it.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now().trunc_subsecs(3),
            Self::Fixed(at) => at,
        }
    }
}

/// Makes names and ids that nobody else makes.
#[derive(Debug)]
pub(crate) struct RoomNameGenerator {
    sequence: SuffixSequence,
    next: AtomicU32,
}

impl RoomNameGenerator {
    pub(crate) fn new(sequence: SuffixSequence) -> Self {
        Self { sequence, next: AtomicU32::new(0) }
    }

    /// The next room name; it repeats after 2^24 others, by which time its second is over.
    pub(crate) fn room(&self, at: DateTime<Utc>) -> RoomName {
        RoomName::new(at, self.sequence.suffix(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

pub(crate) fn random_sequence() -> SuffixSequence {
    SuffixSequence::new(rand::random(), rand::random())
}

pub(crate) fn session_id(at: DateTime<Utc>) -> SessionId {
    SessionId::new(at, rand::random())
}

pub(crate) fn template_id(at: DateTime<Utc>) -> SessionTemplateId {
    SessionTemplateId::new(at, rand::random())
}

pub(crate) fn guest() -> ParticipantIdentity {
    ParticipantIdentity::guest(rand::random())
}
