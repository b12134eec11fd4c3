//! The rules of starts, written again without a database: keys, resumed sessions and the limit.

use std::collections::{BTreeMap, BTreeSet};

use greenroom_core::domain::SessionId;
use greenroom_core::{Error, StartedSession};
use rand::Rng;

use super::random::Seeded;

pub type Outcome = Result<StartedSession, Error>;

/// Number of different keys, and of different end users.
const NAMES: u8 = 5;

/// A kind of start.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Plain,
    /// A user whose id is so long that the session has a statement of its own.
    LongUser,
    /// A backend's key, with one of two requests.
    Key {
        key: u8,
        body: u8,
    },
    /// An end user's key, which other users do not share.
    UserKey {
        user: u8,
        key: u8,
    },
    /// An end user without a key.
    EndUser(u8),
    UnknownTemplate,
    ArchivedTemplate,
    ForeignTemplate,
    OtherAgent,
    /// An end user who names another user.
    OtherUser,
    /// An end user who sends metadata.
    Metadata,
}

impl Kind {
    pub fn random(random: &mut Seeded) -> Self {
        let (one, two) = (random.random_range(0..NAMES), random.random_range(0..NAMES));
        match random.random_range(0..20) {
            0 => Self::LongUser,
            1..=5 => Self::Key { key: one, body: two % 2 },
            6 | 7 => Self::UserKey { user: one, key: two },
            8..=10 => Self::EndUser(one),
            11 => Self::UnknownTemplate,
            12 => Self::ArchivedTemplate,
            13 => Self::ForeignTemplate,
            14 => Self::OtherAgent,
            15 => Self::OtherUser,
            16 => Self::Metadata,
            _ => Self::Plain,
        }
    }

    /// The claim and the request of a start that its template and its caller permit. `number` is that of
    /// the start.
    fn claim(self, number: usize) -> Option<(Claim, u8)> {
        match self {
            Self::Plain | Self::LongUser => Some((Claim::None(number), 0)),
            Self::Key { key, body } => Some((Claim::Key(key), body)),
            Self::UserKey { user, key } => Some((Claim::UserKey(user, key), 0)),
            Self::EndUser(user) => Some((Claim::EndUser(user), 0)),
            _ => None,
        }
    }

    /// Whether this error is right for a start without a claim.
    fn is_refused_with(self, error: &Error) -> bool {
        match self {
            Self::UnknownTemplate | Self::ArchivedTemplate => {
                matches!(error, Error::TemplateNotFound(_))
            }
            Self::ForeignTemplate => matches!(error, Error::TemplateForbidden(_)),
            Self::OtherAgent => matches!(error, Error::AgentMismatch),
            Self::OtherUser => matches!(error, Error::UserMismatch),
            Self::Metadata => matches!(error, Error::MetadataForbidden),
            _ => false,
        }
    }
}

/// A key or an end user, which at most one session of the organization holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// The number of a start without a key: no other start has this claim.
    None(usize),
    Key(u8),
    UserKey(u8, u8),
    EndUser(u8),
}

/// The session that holds a claim, and the request that it was started with.
#[derive(Debug, Clone, Copy)]
struct Holder {
    id: SessionId,
    body: u8,
}

/// The sessions of one organization.
pub struct Model {
    limit: Option<usize>,
    open: BTreeSet<SessionId>,
    written: BTreeSet<SessionId>,
    holders: BTreeMap<Claim, Holder>,
}

impl Model {
    pub fn new(limit: Option<usize>) -> Self {
        Self { limit, open: BTreeSet::new(), written: BTreeSet::new(), holders: BTreeMap::new() }
    }

    /// The sessions that were ever written.
    pub fn written(&self) -> &BTreeSet<SessionId> {
        &self.written
    }

    /// The open sessions whose end has an effect on later starts.
    pub fn endable(&self) -> Vec<SessionId> {
        match self.limit {
            Some(_) => self.open.iter().copied().collect(),
            None => {
                let ids = self.holders.values().map(|holder| holder.id);
                ids.filter(|id| self.open.contains(id)).collect()
            }
        }
    }

    pub fn end(&mut self, id: SessionId) {
        assert!(self.open.remove(&id), "{id} is not open");
    }

    /// Keys and end users have new names from now on.
    pub fn forget_names(&mut self) {
        self.holders.clear();
    }

    /// Checks the outcomes of concurrent starts, and learns which sessions they wrote.
    #[track_caller]
    pub fn check(&mut self, outcomes: Vec<(Kind, Outcome)>) {
        let free = self.limit.map(|limit| limit - self.open.len());
        let mut claims: BTreeMap<Claim, Vec<(u8, Outcome)>> = BTreeMap::new();
        for (number, (kind, outcome)) in outcomes.into_iter().enumerate() {
            match (kind.claim(number), outcome) {
                (Some((claim, body)), outcome) => {
                    claims.entry(claim).or_default().push((body, outcome));
                }
                (None, Err(error)) if kind.is_refused_with(&error) => {}
                (None, outcome) => panic!("{kind:?}: {outcome:?}"),
            }
        }
        let (mut demand, mut started) = (0, 0);
        for (claim, outcomes) in claims {
            let is_new = !self.is_held(claim);
            if is_new {
                self.holders.remove(&claim);
            }
            let holder = self.check_claim(claim, outcomes);
            demand += usize::from(is_new);
            started += usize::from(is_new && holder.is_some());
            if let (Some(holder), false) = (holder, matches!(claim, Claim::None(_))) {
                self.holders.insert(claim, holder);
            }
        }
        assert_eq!(started, demand.min(free.unwrap_or(demand)), "{demand} wanted, {free:?} free");
    }

    /// Whether starts with this claim get no new session. An end user without a key gets another session
    /// if theirs is over.
    fn is_held(&self, claim: Claim) -> bool {
        self.holders.get(&claim).is_some_and(|holder| {
            !matches!(claim, Claim::EndUser(_)) || self.open.contains(&holder.id)
        })
    }

    /// Checks the starts with the same claim, and returns the holder. `None` means that the limit refused
    /// them all.
    #[track_caller]
    fn check_claim(&mut self, claim: Claim, outcomes: Vec<(u8, Outcome)>) -> Option<Holder> {
        let written: Vec<_> = outcomes
            .iter()
            .filter_map(|(body, outcome)| Some((*body, outcome.as_ref().ok()?)))
            .filter(|(_, started)| !started.replayed)
            .map(|(body, started)| Holder { id: started.session.id, body })
            .collect();
        let held = self.holders.get(&claim).copied();
        assert!(written.len() <= usize::from(held.is_none()), "{claim:?} {held:?}: {written:?}");
        for Holder { id, .. } in &written {
            assert!(self.written.insert(*id) && self.open.insert(*id), "{claim:?}: {id} again");
        }
        let holder = held.or(written.first().copied());
        for (body, outcome) in outcomes {
            let is_right = match (holder, &outcome) {
                (None, Err(Error::TooManyActiveSessions { .. })) => self.limit.is_some(),
                (Some(holder), Err(Error::IdempotencyKeyReused)) => body != holder.body,
                (Some(holder), Err(Error::SessionOver(id))) => {
                    body == holder.body && *id == holder.id && !self.open.contains(id)
                }
                (Some(holder), Ok(started)) => {
                    let id = started.session.id;
                    body == holder.body && id == holder.id && self.open.contains(&id)
                }
                _ => false,
            };
            assert!(is_right, "{claim:?} {body} {holder:?}: {outcome:?}");
        }
        holder
    }
}
