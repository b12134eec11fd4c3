//! A user that stays in a room and takes commands: `python/live_participant.py`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::User;
use crate::process::{GuardedCommand, Process};
use crate::{json_lines, paths, tools, wait_until};

/// Maximum time until the user is in the room. Starting Python and joining are slow on a busy
/// machine.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A user in a room. Dropping it has the effect of [`Self::kill`].
#[derive(Debug)]
pub struct LiveParticipant {
    process: Process,
    events_file: PathBuf,
    commands_file: PathBuf,
}

/// An event and its time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TimedEvent {
    /// Milliseconds since the user's program started.
    pub ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// An event that the user's program reports.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The user has joined the room. After a reload, the user joins again as a new participant.
    Joined {
        /// The room's name.
        room: String,
        /// The user's identity.
        identity: String,
        /// LiveKit's id of this participant.
        sid: String,
    },
    /// A data packet has arrived.
    Data {
        /// The packet's topic.
        topic: String,
        /// The packet's payload as text.
        payload: String,
        /// The sender's identity. `None` means that a backend has sent the packet.
        sender: Option<String>,
    },
    /// The connection is lost, and the SDK is reconnecting.
    Reconnecting,
    /// The SDK has reconnected. If LiveKit had already removed the participant, the user is now a
    /// new participant, which the SDK does not report.
    Reconnected,
    /// The connection has ended.
    Disconnected {
        /// LiveKit's `DisconnectReason`, such as `DUPLICATE_IDENTITY`.
        reason: String,
    },
    /// The user has left because of [`LiveParticipant::leave`].
    Left,
    /// The user's program has failed and exited.
    Failed {
        /// The error.
        error: String,
    },
}

#[derive(Debug, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
enum Command<'a> {
    SendData { topic: &'a str, payload: &'a str },
    Reload,
    Leave,
}

impl User {
    /// Joins and stays. The user publishes no track and waits for no greeting.
    ///
    /// Two calls with the same token have the effect of one page in two browser tabs: LiveKit
    /// disconnects the first participant with `DUPLICATE_IDENTITY`.
    ///
    /// # Errors
    /// Returns an error if Python is missing or LiveKit refuses the user.
    pub async fn join_and_stay(self) -> Result<LiveParticipant> {
        let python = tokio::task::spawn_blocking(|| tools::python::LIVEKIT.interpreter()).await??;
        let directory = paths::create_temp_dir("participant", None)?;
        let (events_file, commands_file) = (directory.join("events"), directory.join("commands"));
        std::fs::write(&commands_file, "")?;
        let log = directory.join("participant.log");
        let process = GuardedCommand::new("live-participant", python, log)
            .args([tools::python::script("live_participant.py")])
            .env("LIVEKIT_URL", self.url)
            .env("LIVEKIT_TOKEN", self.token)
            .env("PARTICIPANT_EVENTS", &events_file)
            .env("PARTICIPANT_COMMANDS", &commands_file)
            .stop_signal("KILL", Duration::ZERO)
            .remove_on_stop(directory)
            .start()?;
        let mut participant = LiveParticipant { process, events_file, commands_file };
        participant.wait_until_joined(1).await?;
        Ok(participant)
    }
}

impl LiveParticipant {
    /// Returns all events so far, in order.
    ///
    /// # Errors
    /// Returns an error if the events cannot be read.
    pub fn events(&self) -> Result<Vec<TimedEvent>> {
        json_lines::read(&self.events_file)
    }

    /// Returns the participant's sid from the last time it joined.
    ///
    /// # Errors
    /// Returns an error if the events cannot be read.
    pub fn sid(&self) -> Result<String> {
        let sid = self.events()?.into_iter().rev().find_map(|timed| match timed.event {
            Event::Joined { sid, .. } => Some(sid),
            _ => None,
        });
        sid.context("the participant has not joined a room yet")
    }

    /// Returns the payloads of all data packets with this topic that have arrived so far.
    ///
    /// # Errors
    /// Returns an error if the events cannot be read.
    pub fn received_data(&self, topic: &str) -> Result<Vec<String>> {
        let payloads = self.events()?.into_iter().filter_map(|timed| match timed.event {
            Event::Data { topic: packet_topic, payload, .. } if packet_topic == topic => {
                Some(payload)
            }
            _ => None,
        });
        Ok(payloads.collect())
    }

    /// Waits for the first data packet with this topic and returns its payload.
    ///
    /// # Errors
    /// Returns an error if no such packet has arrived within `timeout`.
    pub async fn wait_for_data(&mut self, topic: &str, timeout: Duration) -> Result<String> {
        self.wait_for_event(&format!("data with the topic {topic}"), timeout, |event| match event {
            Event::Data { topic: packet_topic, payload, .. } if packet_topic == topic => {
                Some(payload.clone())
            }
            _ => None,
        })
        .await
    }

    /// Waits until the connection ends and returns the reason.
    ///
    /// # Errors
    /// Returns an error if the connection has not ended within `timeout`.
    pub async fn wait_for_disconnect(&mut self, timeout: Duration) -> Result<String> {
        self.wait_for_event("the user to be disconnected", timeout, |event| match event {
            Event::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the first reconnect after the connection was lost.
    ///
    /// # Errors
    /// Returns an error if the user has not reconnected within `timeout`.
    pub async fn wait_for_reconnect(&mut self, timeout: Duration) -> Result<()> {
        self.wait_for_event("the user to reconnect", timeout, |event| {
            (*event == Event::Reconnected).then_some(())
        })
        .await
    }

    /// Sends a data packet to all participants in the room.
    ///
    /// # Errors
    /// Returns an error if the command cannot be written.
    pub fn send_data(&self, topic: &str, payload: &str) -> Result<()> {
        json_lines::append(&self.commands_file, &Command::SendData { topic, payload })
    }

    /// Leaves and joins again at once with the same token, as a reloaded page does.
    ///
    /// # Errors
    /// Returns an error if the user does not join again within 30 seconds.
    pub async fn reload(&mut self) -> Result<()> {
        let before = join_count(&self.events()?);
        json_lines::append(&self.commands_file, &Command::Reload)?;
        self.wait_until_joined(before + 1).await
    }

    /// Disconnects from LiveKit properly, and waits until this is done.
    ///
    /// # Errors
    /// Returns an error if the user has not left after ten seconds.
    pub async fn leave(mut self) -> Result<()> {
        json_lines::append(&self.commands_file, &Command::Leave)?;
        self.wait_for_event("the user to leave", LEAVE_TIMEOUT, |event| {
            (*event == Event::Left).then_some(())
        })
        .await
    }

    /// Kills the user's program. It sends nothing to LiveKit, which notices the loss later.
    ///
    /// # Errors
    /// Returns an error if waiting for the program fails.
    pub async fn kill(self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.process.kill()).await?
    }

    /// Returns the log of the user's program and of the SDK so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    async fn wait_until_joined(&mut self, times: usize) -> Result<()> {
        let what = "the user to be in the room";
        self.wait_for(what, JOIN_TIMEOUT, |events| (join_count(events) >= times).then_some(()))
            .await
    }

    async fn wait_for_event<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        find: impl Fn(&Event) -> Option<T>,
    ) -> Result<T> {
        self.wait_for(what, timeout, |events| events.iter().find_map(|timed| find(&timed.event)))
            .await
    }

    /// Waits until `find` returns a value for the events so far. Gives up early if the user's
    /// program exits.
    async fn wait_for<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        find: impl Fn(&[TimedEvent]) -> Option<T>,
    ) -> Result<T> {
        let found = wait_until(what, timeout, || {
            // Check this before reading, so that the last events of the program are not missed.
            let has_exited = self.process.has_exited();
            let found = self.events().map(|events| find(&events));
            async move {
                Ok(match found? {
                    None if has_exited => Some(None),
                    found => found.map(Some),
                })
            }
        });
        let found = found.await.and_then(|found| found.context("the user's program has exited"));
        found.with_context(|| {
            format!(
                "failed to wait for {what}: the events are {:?}, and the log is {}",
                self.events(),
                self.output()
            )
        })
    }
}

fn join_count(events: &[TimedEvent]) -> usize {
    events.iter().filter(|timed| matches!(timed.event, Event::Joined { .. })).count()
}
