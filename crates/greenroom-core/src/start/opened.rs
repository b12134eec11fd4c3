//! Records the opened rooms of starts: rooms that were opened at about the same time share a statement.

use std::collections::HashSet;
use std::time::Duration;

use greenroom_domain::lifecycle::Fact;
use greenroom_store::{
    OpenedRoom, SessionKey, Subject, record_own, record_room_opened, record_rooms_opened,
};
use tokio::time::{Instant, timeout_at};

use super::batch::is_lock_timeout;
use crate::batch_queue::{
    BatchItem, BatchQueue, Queued, halves, is_unavailable, may_concern_one_item, reply_error,
};
use crate::bulkhead::Work;
use crate::{Error, Greenroom};

/// Time for which a statement waits for a session that another transaction has locked. Its rooms are then
/// recorded one by one, so that the others do not wait for that session.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);

/// The opened rooms that wait to be recorded.
pub(crate) type OpenedQueue = BatchQueue<OpenedRoom>;

type QueuedRoom = Queued<OpenedRoom>;

impl BatchItem for OpenedRoom {
    type Scope = ();
    /// Whether the session is still open.
    type Output = bool;
    const WORK: Work = Work::StartStep;

    async fn execute(greenroom: &Greenroom, (): (), batch: Vec<QueuedRoom>) -> bool {
        greenroom.record_batch(batch).await
    }
}

impl Greenroom {
    /// Records that the room of a session was opened. Returns whether the session is still open. If it
    /// is over, records that too, so that the keeper deletes the room.
    pub(super) async fn record_opened(
        &self,
        room: OpenedRoom,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let (room, recorded) = Queued::new(room, deadline);
        self.shared.limits.opened_queue.enqueue_in_task(room, self)?;
        // A statement may take until the latest deadline of its rooms.
        let recorded = timeout_at(deadline, recorded).await.map_err(|_| Error::Overloaded)?;
        // The sender is dropped if the runtime of its task shuts down.
        recorded.unwrap_or(Err(Error::ShuttingDown))
    }

    /// Records opened rooms and replies to their starts. Returns true if PostgreSQL did not respond in
    /// time. If one room may be the cause of an error, splits the batch until that room is alone.
    async fn record_batch(&self, batch: Vec<QueuedRoom>) -> bool {
        let mut is_abandoned = false;
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.try_record(&part).await {
                Ok(recorded) => self.finish(part, &recorded),
                Err(error) if is_lock_timeout(&error) => self.spawn_record_each(part),
                Err(error) if part.len() > 1 && may_concern_one_item(&error) => {
                    parts.extend(halves(part));
                }
                Err(error) => {
                    is_abandoned |= is_unavailable(&error);
                    reply_error(part, error);
                }
            }
        }
        is_abandoned
    }

    /// Records rooms in one statement, until the latest of their deadlines.
    async fn try_record(&self, rooms: &[QueuedRoom]) -> Result<HashSet<SessionKey>, Error> {
        let deadline = rooms.iter().map(|room| room.deadline).max().ok_or(Error::Overloaded)?;
        let opened: Vec<_> = rooms.iter().map(|room| &room.item).collect();
        let record = async |db: &mut _| record_rooms_opened(db, &opened, LOCK_TIMEOUT).await;
        self.shared.database.run_until(Work::StartStep, deadline, record).await
    }

    /// Replies to the starts whose rooms were recorded. The other sessions are over, or were changed
    /// meanwhile.
    fn finish(&self, rooms: Vec<QueuedRoom>, recorded: &HashSet<SessionKey>) {
        let is_recorded = |room: &QueuedRoom| recorded.contains(&room.item.key);
        let (recorded, others): (Vec<_>, Vec<_>) = rooms.into_iter().partition(is_recorded);
        for room in recorded {
            let _ = room.reply.send(Ok(true));
        }
        self.spawn_record_each(others);
    }

    fn spawn_record_each(&self, rooms: Vec<QueuedRoom>) {
        for room in rooms {
            let greenroom = self.clone();
            let record = async move { greenroom.record_alone(room).await };
            self.shared.database.spawn_until_settled(record);
        }
    }

    /// Records a room outside the queue, or that its session is over. Takes a permit first, because a
    /// transaction that has locked the session may occupy the connection until the deadline.
    async fn record_alone(&self, QueuedRoom { item: room, deadline, reply }: QueuedRoom) {
        let record = async |db: &mut _| {
            let is_open = record_room_opened(db, &room).await?;
            if !is_open {
                let (organization, id) = (room.key.organization_id, room.key.id);
                let subject = Subject::Session { organization, id, end_user: None };
                let late = Fact::RoomOpenedLate { sid: room.sid.clone() };
                record_own(db, subject, &late).await?;
            }
            Ok(is_open)
        };
        let permits = &self.shared.limits.lock_waits;
        let result = match timeout_at(deadline, permits.acquire()).await {
            Ok(_permit) => self.shared.database.run_until(Work::StartStep, deadline, record).await,
            Err(_) => Err(Error::Overloaded),
        };
        let _ = reply.send(result);
    }
}
