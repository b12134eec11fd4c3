//! Reads of single sessions: reads that arrive together share a statement.

use std::collections::{HashMap, HashSet};

use greenroom_store::{Session, SessionKey, session};
use tokio::time::{Instant, timeout_at};

use crate::batch_queue::{BatchItem, BatchQueue, Queued, is_unavailable, reply_error};
use crate::bulkhead::Work;
use crate::database::DB_TIMEOUT;
use crate::{Error, Greenroom};

/// The reads that wait for the next statement, of all organizations.
pub(crate) type ReadQueue = BatchQueue<Read>;

/// A session to read.
pub(crate) struct Read(SessionKey);

impl BatchItem for Read {
    type Scope = ();
    type Output = Option<Session>;
    const WORK: Work = Work::Request;

    async fn execute(greenroom: &Greenroom, (): (), batch: Vec<Queued<Self>>) -> bool {
        greenroom.read_sessions(batch).await
    }
}

impl Greenroom {
    /// Reads a session of any user. Returns `None` if the organization has no such session.
    pub(crate) async fn read_session(&self, key: SessionKey) -> Result<Option<Session>, Error> {
        let deadline = Instant::now() + DB_TIMEOUT;
        let (read, session) = Queued::new(Read(key), deadline);
        self.shared.reads.enqueue_in_task(read, self)?;
        // A statement may take until the latest deadline of its reads.
        let session = timeout_at(deadline, session).await.map_err(|_| Error::Overloaded)?;
        session.unwrap_or(Err(Error::ShuttingDown))
    }

    /// Reads sessions with one statement, and replies to each read. A row that cannot be decoded only
    /// fails its own reads. Returns true if PostgreSQL did not respond in time.
    async fn read_sessions(&self, batch: Vec<Queued<Read>>) -> bool {
        let keys: HashSet<_> = batch.iter().map(|read| read.item.0).collect();
        let keys: Vec<_> = keys.into_iter().collect();
        let deadline = batch.iter().map(|read| read.deadline).max();
        let deadline = deadline.unwrap_or_else(Instant::now);
        let find = async |db: &mut _| session::find_many(db, &keys).await;
        let found = match self.shared.database.run_until(Work::RequestStep, deadline, find).await {
            Ok(found) => found,
            Err(error) => {
                let is_abandoned = is_unavailable(&error);
                reply_error(batch, error);
                return is_abandoned;
            }
        };
        let found: HashMap<_, _> = found.into_iter().collect();
        for Queued { item: Read(key), reply, .. } in batch {
            let session = match found.get(&key) {
                None => Ok(None),
                Some(Ok(session)) => Ok(Some(session.clone())),
                Some(Err(error)) => Err(error.for_other_caller().into()),
            };
            // The receiver is gone if the caller was dropped.
            let _ = reply.send(session);
        }
        false
    }
}
