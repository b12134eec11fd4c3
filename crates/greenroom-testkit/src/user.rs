//! Real users on LiveKit's Python SDK, who join with a token: `python/user.py`, and those who stay.

mod present;

pub use present::{Event, Present, Seen};

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{place, process::Guarded, tools};

/// Somebody about to join a room.
#[derive(Debug, Clone)]
pub struct User {
    url: String,
    token: String,
    publish: Option<&'static str>,
    greeting_within: Duration,
}

/// What the user saw. Times are milliseconds since it began to connect.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Report {
    /// Whether it got into the room.
    pub connected: bool,
    /// When it was in.
    pub connected_ms: Option<u64>,
    /// The room's name, as LiveKit tells it.
    pub room: Option<String>,
    /// Who it is, as LiveKit tells it.
    pub identity: Option<String>,
    /// The metadata of its token, as LiveKit tells it.
    pub metadata: Option<String>,
    /// The agent it met.
    pub agent_identity: Option<String>,
    /// What the agent said.
    pub greeting: Option<String>,
    /// When the agent said it.
    pub greeting_ms: Option<u64>,
    /// Whether it may publish tracks at all.
    pub can_publish: Option<bool>,
    /// Whether the track it was told to publish was taken; none when it was not told to.
    pub published: Option<bool>,
    /// Why something did not work.
    pub error: Option<String>,
}

impl User {
    /// Somebody with this token, who waits ten seconds for a greeting.
    #[must_use]
    pub fn new(url: &str, token: &str) -> Self {
        Self {
            url: url.to_owned(),
            token: token.to_owned(),
            publish: None,
            greeting_within: Duration::from_secs(10),
        }
    }

    /// Also publishes a track from its microphone. LiveKit then tells the agent of it at once; of
    /// somebody who only listens it tells within three seconds.
    #[must_use]
    pub fn publishing_microphone(mut self) -> Self {
        self.publish = Some("microphone");
        self
    }

    /// Also publishes a track from its camera.
    #[must_use]
    pub fn publishing_camera(mut self) -> Self {
        self.publish = Some("camera");
        self
    }

    /// Waits this long for the greeting: zero when no agent is expected.
    #[must_use]
    pub fn greeting_within(mut self, time: Duration) -> Self {
        self.greeting_within = time;
        self
    }

    /// Joins, does all that, leaves, and reports. A refused token is a report, too, with its
    /// `error`.
    ///
    /// # Errors
    /// When Python is missing, or the program breaks.
    pub async fn join(self) -> Result<Report> {
        tokio::task::spawn_blocking(move || self.join_blocking()).await?
    }

    fn join_blocking(self) -> Result<Report> {
        let python = tools::python::LIVEKIT.interpreter()?;
        let home = place::temporary("user", None)?;
        let report = home.join("report.json");
        Guarded::new("user", python, home.join("user.log"))
            .args([tools::python::script("user.py")])
            .args(["--greeting-within", &self.greeting_within.as_secs_f32().to_string()])
            .args(self.publish.iter().flat_map(|source| ["--publish", source]))
            .env("LIVEKIT_URL", self.url)
            .env("LIVEKIT_TOKEN", self.token)
            .env("USER_REPORT", &report)
            .run()?;
        let told = std::fs::read(report).context("the user reported nothing")?;
        std::fs::remove_dir_all(home).ok();
        serde_json::from_slice(&told).context("the user reported what is no report")
    }
}
