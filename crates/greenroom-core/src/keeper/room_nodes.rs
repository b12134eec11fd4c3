//! Remembers for each room whether its LiveKit node responded, so that a dead node is not asked at
//! every check.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use greenroom_domain::{ReconcileInterval, RoomName};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Time for which a room is not looked up again after LiveKit reported that its node is gone. The
/// report takes three seconds.
const GONE_LIFETIME: Duration = Duration::from_secs(30);

/// The dispatches of a room in which nothing changes are listed at every fourth check.
const CHECKS_PER_LISTING: u32 = 4;

/// Minimum number of entries at which expired ones are removed.
const MIN_PRUNE_SIZE: usize = 1_024;

/// The result of the latest listing of each room's dispatches.
///
/// A room that is opened again keeps its name and its sid. Its knowledge is therefore forgotten when
/// this process opens the room, and does not apply after the user has joined again, which opens it
/// as well.
pub(crate) struct RoomNodes {
    rooms: Mutex<Rooms>,
    listing_lifetime: Duration,
}

struct Rooms {
    listed: HashMap<RoomName, Listing>,
    prune_at: usize,
}

struct Listing {
    user_joined_at: Option<DateTime<Utc>>,
    at: Instant,
    has_node: bool,
}

/// The node of a room, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// The dispatches were listed recently.
    Present,
    /// LiveKit reported recently that the node is gone.
    Gone,
    Unknown,
}

impl RoomNodes {
    pub(crate) fn new(reconcile_every: ReconcileInterval) -> Self {
        let interval = Duration::from_secs(reconcile_every.get().unsigned_abs().into());
        let rooms = Rooms { listed: HashMap::new(), prune_at: MIN_PRUNE_SIZE };
        Self { rooms: Mutex::new(rooms), listing_lifetime: interval * CHECKS_PER_LISTING }
    }

    /// Returns whether the node of a room is known to be present or gone. `user_joined_at` is the latest join of the
    /// session's user.
    pub(super) fn node(&self, name: &RoomName, user_joined_at: Option<DateTime<Utc>>) -> Node {
        let rooms = self.rooms.lock();
        match rooms.listed.get(name) {
            Some(room) if !self.is_current(room) || room.user_joined_at != user_joined_at => {
                Node::Unknown
            }
            Some(room) if room.has_node => Node::Present,
            Some(_) => Node::Gone,
            None => Node::Unknown,
        }
    }

    pub(super) fn record(
        &self,
        name: &RoomName,
        user_joined_at: Option<DateTime<Utc>>,
        has_node: bool,
    ) {
        let mut rooms = self.rooms.lock();
        let listing = Listing { user_joined_at, at: Instant::now(), has_node };
        rooms.listed.insert(name.clone(), listing);
        if rooms.listed.len() >= rooms.prune_at {
            rooms.listed.retain(|_, listing| self.is_current(listing));
            rooms.prune_at = (rooms.listed.len() * 2).max(MIN_PRUNE_SIZE);
        }
    }

    /// Forgets a room that was opened again, or whose dispatches must be listed at the next check.
    pub(super) fn forget(&self, name: &RoomName) {
        self.rooms.lock().listed.remove(name);
    }

    fn is_current(&self, listing: &Listing) -> bool {
        let lifetime = if listing.has_node { self.listing_lifetime } else { GONE_LIFETIME };
        listing.at.elapsed() < lifetime
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn name(number: usize) -> RoomName {
        RoomName::try_from(format!("session_20261127_120000_{number:06x}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn knowledge_expires_and_ends_when_the_room_is_opened_again() {
        let nodes = RoomNodes::new(ReconcileInterval::constant::<30>());
        assert_eq!(nodes.node(&name(1), None), Node::Unknown);
        nodes.record(&name(1), None, true);
        nodes.record(&name(2), None, false);
        assert_eq!(nodes.node(&name(1), None), Node::Present);
        assert_eq!(nodes.node(&name(2), None), Node::Gone);
        assert_eq!(nodes.node(&name(2), Some(DateTime::UNIX_EPOCH)), Node::Unknown, "joined again");
        advance(GONE_LIFETIME).await;
        assert_eq!(nodes.node(&name(2), None), Node::Unknown);
        assert_eq!(nodes.node(&name(1), None), Node::Present);
        nodes.record(&name(2), None, false);
        nodes.forget(&name(2));
        assert_eq!(nodes.node(&name(2), None), Node::Unknown, "opened again");
        advance(Duration::from_secs(90)).await;
        assert_eq!(nodes.node(&name(1), None), Node::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_rooms_are_removed() {
        let nodes = RoomNodes::new(ReconcileInterval::constant::<30>());
        for number in 0..10 * MIN_PRUNE_SIZE {
            nodes.record(&name(number), None, false);
            advance(Duration::from_millis(100)).await;
        }
        assert!(nodes.rooms.lock().listed.len() <= MIN_PRUNE_SIZE);
    }
}
