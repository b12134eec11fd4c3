//! The rooms that starts of this process open. LiveKit reports each in a webhook, which needs no statement
//! of its own after the start has recorded the room.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use greenroom_domain::RoomName;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

/// Maximum number of recorded rooms that are remembered. LiveKit sends the webhook of a room within
/// milliseconds.
const MAX_RECORDED: usize = 1_024;

/// Maximum time for which a webhook waits for the start that opens its room.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Rooms that a start is opening, and those that were opened and recorded last.
#[derive(Default)]
pub(crate) struct OpeningRooms(Mutex<Rooms>);

#[derive(Default)]
struct Rooms {
    /// Each receives LiveKit's sid of the room after the start has recorded it.
    sids: HashMap<RoomName, watch::Receiver<Option<String>>>,
    recorded: VecDeque<RoomName>,
}

/// A room that a start is opening. Dropping it forgets the room, unless it was recorded.
pub(crate) struct OpeningRoom<'a> {
    rooms: &'a OpeningRooms,
    name: &'a RoomName,
    sid: watch::Sender<Option<String>>,
}

impl OpeningRooms {
    pub(crate) fn begin<'a>(&'a self, name: &'a RoomName) -> OpeningRoom<'a> {
        let (sid, receiver) = watch::channel(None);
        self.0.lock().sids.insert(name.clone(), receiver);
        OpeningRoom { rooms: self, name, sid }
    }

    /// Returns whether a start of this process has recorded the room with this sid. Waits for a start
    /// that is opening the room.
    pub(crate) async fn has_recorded(&self, name: &RoomName, sid: &str) -> bool {
        let Some(mut receiver) = self.0.lock().sids.get(name).cloned() else { return false };
        let recorded = timeout(MAX_WAIT, receiver.wait_for(Option::is_some)).await;
        matches!(recorded, Ok(Ok(recorded)) if recorded.as_deref() == Some(sid))
    }
}

impl OpeningRoom<'_> {
    pub(crate) fn set_recorded(self, sid: String) {
        self.sid.send_replace(Some(sid));
        let mut rooms = self.rooms.0.lock();
        rooms.recorded.push_back(self.name.clone());
        if rooms.recorded.len() > MAX_RECORDED
            && let Some(oldest) = rooms.recorded.pop_front()
        {
            rooms.sids.remove(&oldest);
        }
    }
}

impl Drop for OpeningRoom<'_> {
    fn drop(&mut self) {
        if self.sid.borrow().is_none() {
            self.rooms.0.lock().sids.remove(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn room(number: u32) -> RoomName {
        RoomName::new(DateTime::UNIX_EPOCH, number)
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_room_that_was_recorded_needs_no_webhook() {
        let (rooms, name) = (OpeningRooms::default(), room(1));
        assert!(!rooms.has_recorded(&name, "RM_1").await, "no start opens it");
        let opening = rooms.begin(&name);
        let record = async { opening.set_recorded("RM_1".to_owned()) };
        assert!(tokio::join!(rooms.has_recorded(&name, "RM_1"), record).0);
        assert!(rooms.has_recorded(&name, "RM_1").await);
        assert!(!rooms.has_recorded(&name, "RM_2").await, "LiveKit opened it again");
        assert!(!rooms.has_recorded(&room(2), "RM_1").await);
    }

    #[tokio::test(start_paused = true)]
    async fn webhook_of_a_room_that_is_not_recorded_waits_for_at_most_a_second() {
        let (rooms, name) = (OpeningRooms::default(), room(1));
        let opening = rooms.begin(&name);
        assert!(!rooms.has_recorded(&name, "RM_1").await, "the start takes long");
        let fail = async { drop(opening) };
        assert!(!tokio::join!(rooms.has_recorded(&name, "RM_1"), fail).0);
        assert!(rooms.0.lock().sids.is_empty());
    }

    #[tokio::test]
    async fn oldest_recorded_room_is_forgotten() {
        let rooms = OpeningRooms::default();
        for number in 0..=u32::try_from(MAX_RECORDED).unwrap() {
            rooms.begin(&room(number)).set_recorded("RM_1".to_owned());
        }
        assert!(!rooms.has_recorded(&room(0), "RM_1").await);
        assert!(rooms.has_recorded(&room(1), "RM_1").await);
        assert_eq!(rooms.0.lock().sids.len(), MAX_RECORDED);
    }
}
