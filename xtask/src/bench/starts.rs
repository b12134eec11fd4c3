//! Many sessions, started as fast as it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::api::{Api, text};

/// The user of every session.
pub const USER: &str = "ann";

const AT_ONCE: usize = 8;

/// A LiveKit that opens thousands of rooms at once on a machine it shares is out of breath at times,
/// and a start then fails.
const ATTEMPTS: usize = 5;

const TO_BREATHE: Duration = Duration::from_secs(1);

/// A session that was started.
#[derive(Debug, Clone)]
pub struct Started {
    pub id: String,
    pub room: String,
    /// When it was asked for.
    pub begun: Instant,
}

/// Starts a session of a template.
pub async fn one(api: &Api, template: &str) -> Result<Started> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let begun = Instant::now();
        match api.start(template, USER, None).await {
            Err(error) if attempts == ATTEMPTS => return Err(error),
            Err(_) => sleep(TO_BREATHE).await,
            Ok(answer) => {
                let (id, room) = (text(&answer, "session_id")?, text(&answer, "room_name")?);
                return Ok(Started { id, room, begun });
            }
        }
    }
}

/// Starts so many sessions of a template.
pub async fn many(api: &Api, template: &str, count: usize) -> Result<Vec<Started>> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut starters = JoinSet::new();
    for _ in 0..AT_ONCE {
        starters.spawn(start_while_any(api.clone(), template.to_owned(), left.clone()));
    }
    let started: Result<Vec<_>> = starters.join_all().await.into_iter().collect();
    Ok(started?.concat())
}

async fn start_while_any(
    api: Api,
    template: String,
    left: Arc<AtomicUsize>,
) -> Result<Vec<Started>> {
    let take =
        || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    let mut started = Vec::new();
    while take().is_ok() {
        started.push(one(&api, &template).await?);
    }
    Ok(started)
}
