//! Starts of single sessions, and of many sessions concurrently.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::api::{Api, text};

/// The user of every session.
pub const USER: &str = "ann";

/// Number of concurrent starts.
const CONCURRENCY: usize = 8;

/// Maximum number of attempts per session. A start can fail while LiveKit is overloaded by
/// thousands of new rooms on a shared machine.
const MAX_ATTEMPTS: usize = 5;

const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A started session.
#[derive(Debug, Clone)]
pub struct StartedSession {
    pub id: String,
    pub room: String,
    /// When the successful start was requested.
    pub begun: Instant,
}

/// Starts a session of a template. Retries a failed start.
pub async fn start_session(api: &Api, template: &str) -> Result<StartedSession> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let begun = Instant::now();
        match api.start(template, USER, None).await {
            Err(error) if attempts == MAX_ATTEMPTS => return Err(error),
            Err(_) => sleep(RETRY_DELAY).await,
            Ok(response) => {
                let (id, room) = (text(&response, "session_id")?, text(&response, "room_name")?);
                return Ok(StartedSession { id, room, begun });
            }
        }
    }
}

/// Starts this number of sessions of a template.
pub async fn start_sessions(
    api: &Api,
    template: &str,
    count: usize,
) -> Result<Vec<StartedSession>> {
    let remaining = Arc::new(AtomicUsize::new(count));
    let mut starters = JoinSet::new();
    for _ in 0..CONCURRENCY {
        starters.spawn(start_remaining(api.clone(), template.to_owned(), remaining.clone()));
    }
    let started: Result<Vec<_>> = starters.join_all().await.into_iter().collect();
    Ok(started?.concat())
}

async fn start_remaining(
    api: Api,
    template: String,
    remaining: Arc<AtomicUsize>,
) -> Result<Vec<StartedSession>> {
    let take_one = || {
        remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1))
    };
    let mut started = Vec::new();
    while take_one().is_ok() {
        started.push(start_session(&api, &template).await?);
    }
    Ok(started)
}
