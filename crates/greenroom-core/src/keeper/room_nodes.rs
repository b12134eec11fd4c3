//! Remembers for each room whether its LiveKit node responded, so that a dead node is not asked at
//! every check.

use std::collections::HashMap;
use std::time::Duration;

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

/// The result of the latest listing of each room's dispatches. A room that is opened again has
/// another sid, and is unknown.
pub(crate) struct RoomNodes {
    rooms: Mutex<Rooms>,
    listing_lifetime: Duration,
}

struct Rooms {
    listed: HashMap<RoomName, Listing>,
    prune_at: usize,
}

struct Listing {
    sid: String,
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

    /// Returns what is known about the node of the room with this sid.
    pub(super) fn node(&self, name: &RoomName, sid: &str) -> Node {
        let rooms = self.rooms.lock();
        let Some(listing) = rooms.listed.get(name).filter(|listing| listing.sid == sid) else {
            return Node::Unknown;
        };
        match (self.is_current(listing), listing.has_node) {
            (false, _) => Node::Unknown,
            (true, true) => Node::Present,
            (true, false) => Node::Gone,
        }
    }

    /// Returns whether LiveKit reported recently that the node of a room with this name is gone.
    pub(super) fn is_gone(&self, name: &RoomName) -> bool {
        let rooms = self.rooms.lock();
        rooms.listed.get(name).is_some_and(|room| !room.has_node && self.is_current(room))
    }

    pub(super) fn record(&self, name: &RoomName, sid: &str, has_node: bool) {
        let mut rooms = self.rooms.lock();
        let listing = Listing { sid: sid.to_owned(), at: Instant::now(), has_node };
        rooms.listed.insert(name.clone(), listing);
        if rooms.listed.len() >= rooms.prune_at {
            rooms.listed.retain(|_, listing| self.is_current(listing));
            rooms.prune_at = (rooms.listed.len() * 2).max(MIN_PRUNE_SIZE);
        }
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
    async fn knowledge_expires_and_belongs_to_one_sid() {
        let nodes = RoomNodes::new(ReconcileInterval::constant::<30>());
        assert_eq!(nodes.node(&name(1), "RM_1"), Node::Unknown);
        nodes.record(&name(1), "RM_1", true);
        nodes.record(&name(2), "RM_2", false);
        assert_eq!(nodes.node(&name(1), "RM_1"), Node::Present);
        assert_eq!(nodes.node(&name(2), "RM_2"), Node::Gone);
        assert_eq!(nodes.node(&name(2), "RM_3"), Node::Unknown, "opened again");
        assert!(nodes.is_gone(&name(2)) && !nodes.is_gone(&name(1)));
        advance(GONE_LIFETIME).await;
        assert_eq!(nodes.node(&name(2), "RM_2"), Node::Unknown);
        assert_eq!(nodes.node(&name(1), "RM_1"), Node::Present);
        advance(Duration::from_secs(90)).await;
        assert_eq!(nodes.node(&name(1), "RM_1"), Node::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_rooms_are_removed() {
        let nodes = RoomNodes::new(ReconcileInterval::constant::<30>());
        for number in 0..10 * MIN_PRUNE_SIZE {
            nodes.record(&name(number), "RM_1", false);
            advance(Duration::from_millis(100)).await;
        }
        assert!(nodes.rooms.lock().listed.len() <= MIN_PRUNE_SIZE);
    }
}
