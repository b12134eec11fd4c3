//! A user who stays in a room: `python/guest.py` on LiveKit's Python SDK.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::User;
use crate::{
    lines, place,
    process::{Guarded, Process},
    tools, wait_until,
};

/// Starting Python on a busy machine takes a while, and so does joining.
const TO_ENTER: Duration = Duration::from_secs(30);

const TO_LEAVE: Duration = Duration::from_secs(10);

/// Somebody in a room. Dropping it is [`Self::vanish`].
#[derive(Debug)]
pub struct Present {
    process: Process,
    events: PathBuf,
    orders: PathBuf,
}

/// Something the user saw, and how many milliseconds after its program began.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Seen {
    /// When.
    pub ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What a user can see.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It came into the room: again after a reload, as another participant.
    Entered {
        /// The room's name.
        room: String,
        /// Who it is.
        identity: String,
        /// What LiveKit calls this stay of it.
        sid: String,
    },
    /// A data packet arrived.
    Data {
        /// What it is about.
        topic: String,
        /// What it says.
        payload: String,
        /// Who sent it: nobody when a backend did.
        sender: Option<String>,
    },
    /// The connection is lost, and the SDK tries to get it back.
    Reconnecting,
    /// The connection is back. When LiveKit knew the participant no longer it is another one then,
    /// of which the SDK does not tell.
    Reconnected,
    /// The connection is over.
    Disconnected {
        /// LiveKit's `DisconnectReason`, such as `DUPLICATE_IDENTITY`.
        reason: String,
    },
    /// It left as it was told.
    Left,
    /// Something did not work, and the program ended.
    Failed {
        /// What.
        error: String,
    },
}

#[derive(Debug, Serialize)]
#[serde(tag = "order", rename_all = "snake_case")]
enum Order<'a> {
    Send { topic: &'a str, payload: &'a str },
    Reload,
    Leave,
}

impl User {
    /// Joins and stays. It publishes nothing and waits for no greeting: that is [`User::join`].
    ///
    /// Joining twice at the same time with the same token is what a page opened in a second tab
    /// does: LiveKit then disconnects the first with `DUPLICATE_IDENTITY`.
    ///
    /// # Errors
    /// When Python is missing, or LiveKit does not let it in.
    pub async fn enter(self) -> Result<Present> {
        let python = tokio::task::spawn_blocking(|| tools::python::LIVEKIT.interpreter()).await??;
        let home = place::temporary("guest", None)?;
        let (events, orders) = (home.join("events"), home.join("orders"));
        std::fs::write(&orders, "")?;
        let process = Guarded::new("guest", python, home.join("guest.log"))
            .args([tools::python::script("guest.py")])
            .env("LIVEKIT_URL", self.url)
            .env("LIVEKIT_TOKEN", self.token)
            .env("GUEST_EVENTS", &events)
            .env("GUEST_ORDERS", &orders)
            .stopped_by("KILL", Duration::ZERO)
            .removing(home)
            .start()?;
        let mut present = Present { process, events, orders };
        present.entered(1).await?;
        Ok(present)
    }
}

impl Present {
    /// All it has seen so far, in order.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        lines::read(&self.events)
    }

    /// Which participant it became when it last came in.
    ///
    /// # Errors
    /// When what it saw cannot be read.
    pub fn sid(&self) -> Result<String> {
        let sid = self.seen()?.into_iter().rev().find_map(|seen| match seen.event {
            Event::Entered { sid, .. } => Some(sid),
            _ => None,
        });
        sid.context("it was in no room yet")
    }

    /// The payloads of the data packets of this topic that have arrived so far.
    ///
    /// # Errors
    /// When what it saw cannot be read.
    pub fn received(&self, topic: &str) -> Result<Vec<String>> {
        let payloads = self.seen()?.into_iter().filter_map(|seen| match seen.event {
            Event::Data { topic: of, payload, .. } if of == topic => Some(payload),
            _ => None,
        });
        Ok(payloads.collect())
    }

    /// Waits for the first data packet of this topic and returns its payload.
    ///
    /// # Errors
    /// When none came in time.
    pub async fn receive(&mut self, topic: &str, timeout: Duration) -> Result<String> {
        self.see(&format!("data of {topic}"), timeout, |event| match event {
            Event::Data { topic: of, payload, .. } if of == topic => Some(payload.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the end of its connection and returns the reason.
    ///
    /// # Errors
    /// When it did not come in time.
    pub async fn disconnected(&mut self, timeout: Duration) -> Result<String> {
        self.see("the user to be disconnected", timeout, |event| match event {
            Event::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until it is back for the first time after the connection was lost.
    ///
    /// # Errors
    /// When it did not come back in time.
    pub async fn reconnected(&mut self, timeout: Duration) -> Result<()> {
        self.see("the user to be back", timeout, |event| {
            (*event == Event::Reconnected).then_some(())
        })
        .await
    }

    /// Sends everybody in the room a data packet.
    ///
    /// # Errors
    /// When it cannot be told to.
    pub fn send(&self, topic: &str, payload: &str) -> Result<()> {
        lines::append(&self.orders, &Order::Send { topic, payload })
    }

    /// Leaves and joins again at once with the same token, as a page that is loaded again.
    ///
    /// # Errors
    /// When it does not get in again.
    pub async fn reload(&mut self) -> Result<()> {
        let before = entries(&self.seen()?);
        lines::append(&self.orders, &Order::Reload)?;
        self.entered(before + 1).await
    }

    /// Leaves, saying so, and waits until that is done.
    ///
    /// # Errors
    /// When it does not.
    pub async fn leave(mut self) -> Result<()> {
        lines::append(&self.orders, &Order::Leave)?;
        self.see("the user to leave", TO_LEAVE, |event| (*event == Event::Left).then_some(())).await
    }

    /// Goes without any farewell: LiveKit notices by itself.
    ///
    /// # Errors
    /// When its program cannot be ended.
    pub async fn vanish(self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.process.kill()).await?
    }

    /// What its program and the SDK have logged so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    async fn entered(&mut self, times: usize) -> Result<()> {
        let what = "the user to be in the room";
        self.look(what, TO_ENTER, |seen| (entries(seen) >= times).then_some(())).await
    }

    async fn see<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        find: impl Fn(&Event) -> Option<T>,
    ) -> Result<T> {
        self.look(what, timeout, |seen| seen.iter().find_map(|seen| find(&seen.event))).await
    }

    /// Waits for something in what it has seen. Once its program has ended, waiting longer is of no
    /// use.
    async fn look<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        find: impl Fn(&[Seen]) -> Option<T>,
    ) -> Result<T> {
        let found = wait_until(what, timeout, || {
            // Asked before reading, so that its last words are read, too.
            let ended = self.process.has_ended();
            let found = self.seen().map(|seen| find(&seen));
            async move {
                Ok(match found? {
                    None if ended => Some(None),
                    found => found.map(Some),
                })
            }
        });
        let found = found.await.and_then(|found| found.context("its program has ended"));
        found
            .with_context(|| format!("{what}: it saw {:?} and says {}", self.seen(), self.output()))
    }
}

fn entries(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| matches!(seen.event, Event::Entered { .. })).count()
}
