//! Real users that join rooms with LiveKit's Python SDK: for one visit, or until a test ends them.

mod live_participant;

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::GuardedCommand;
use crate::{paths, tools};

pub use self::live_participant::{Event, LiveParticipant, TimedEvent};

/// A user that has not joined a room yet.
#[derive(Debug, Clone)]
pub struct User {
    url: String,
    token: String,
    publish: Option<&'static str>,
    greeting_timeout: Duration,
}

/// The result of [`User::join_and_report`]. Times are milliseconds since the user began to connect.
/// A field is `None` if the user did not get that far.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Report {
    /// Whether the user joined the room.
    pub connected: bool,
    /// Time at which the user had joined.
    pub connected_ms: Option<u64>,
    /// The room's name as LiveKit reports it.
    pub room: Option<String>,
    /// The user's identity as LiveKit reports it.
    pub identity: Option<String>,
    /// The metadata of the token as LiveKit reports it.
    pub metadata: Option<String>,
    /// The identity of the agent that sent the greeting.
    pub agent_identity: Option<String>,
    /// The text of the greeting.
    pub greeting: Option<String>,
    /// Time at which the greeting was complete.
    pub greeting_ms: Option<u64>,
    /// Whether the token allows the user to publish tracks.
    pub can_publish: Option<bool>,
    /// Whether LiveKit accepted the user's track. `None` if the user had no track to publish.
    pub published: Option<bool>,
    /// The first failure.
    pub error: Option<String>,
}

impl User {
    /// Describes a user with this token that waits ten seconds for a greeting.
    #[must_use]
    pub fn new(url: &str, token: &str) -> Self {
        Self {
            url: url.to_owned(),
            token: token.to_owned(),
            publish: None,
            greeting_timeout: Duration::from_secs(10),
        }
    }

    /// Makes the user publish a microphone track. LiveKit announces a user that publishes to the
    /// agent at once, and a user that only listens within three seconds.
    #[must_use]
    pub fn publishing_microphone(mut self) -> Self {
        self.publish = Some("microphone");
        self
    }

    /// Makes the user publish a camera track.
    #[must_use]
    pub fn publishing_camera(mut self) -> Self {
        self.publish = Some("camera");
        self
    }

    /// Sets how long the user waits for a greeting. Zero means that the user does not wait.
    #[must_use]
    pub fn greeting_timeout(mut self, timeout: Duration) -> Self {
        self.greeting_timeout = timeout;
        self
    }

    /// Joins, publishes, waits for the greeting, leaves, and reports. If LiveKit refuses the token,
    /// the report says so in `error`.
    ///
    /// # Errors
    /// Returns an error if Python is missing or the program fails without a report.
    pub async fn join_and_report(self) -> Result<Report> {
        tokio::task::spawn_blocking(move || self.join_and_report_blocking()).await?
    }

    fn join_and_report_blocking(self) -> Result<Report> {
        let python = tools::python::LIVEKIT.interpreter()?;
        let directory = paths::create_temp_dir("user", None)?;
        let report_file = directory.join("report.json");
        GuardedCommand::new("user", python, directory.join("user.log"))
            .args([tools::python::script("user.py")])
            .args(["--greeting-timeout", &self.greeting_timeout.as_secs_f32().to_string()])
            .args(self.publish.iter().flat_map(|source| ["--publish", source]))
            .env("LIVEKIT_URL", self.url)
            .env("LIVEKIT_TOKEN", self.token)
            .env("USER_REPORT", &report_file)
            .run()?;
        let report = std::fs::read(report_file).context("the user wrote no report")?;
        std::fs::remove_dir_all(directory).ok();
        serde_json::from_slice(&report).context("the user's report has unexpected fields")
    }
}
