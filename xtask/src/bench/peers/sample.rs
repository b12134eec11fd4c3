//! The measured numbers of one target in one cell.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Cell;
use super::load::Answers;
use crate::bench::process::Usage;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A start that opens no room.
    Start,
    /// A start that opens a room with an agent.
    Room,
    /// One session by its id.
    Get,
    /// The first 50 sessions of the organization.
    List,
}

/// CPU times at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// `None` without a service.
    pub server: Option<Usage>,
    pub livekit: Option<Usage>,
    pub postgres: Duration,
    /// The load generator, which is this process.
    pub generator: Duration,
}

/// Numbers of one cell. CPU times are in microseconds per accepted request.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub target: &'static str,
    pub work: Work,
    pub connections: usize,
    /// Number of requests that succeeded; rows for a batch insert.
    pub accepted: u64,
    pub refused: u64,
    /// Accepted requests per second.
    pub rate: f64,
    pub p50_milliseconds: f64,
    pub p99_milliseconds: f64,
    pub server_cpu: Option<f64>,
    pub livekit_cpu: Option<f64>,
    pub postgres_cpu: f64,
    pub generator_cpu: Option<f64>,
    /// Anonymous memory of the service's processes.
    pub resident_megabytes: Option<f64>,
}

impl Costs {
    /// Returns the costs since an earlier moment, with the memory of this moment.
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |now: Option<Usage>, earlier: Option<Usage>| {
            now.zip(earlier).map(|(now, earlier)| Usage {
                cpu: now.cpu.saturating_sub(earlier.cpu),
                resident: now.resident,
            })
        };
        Self {
            server: since(self.server, earlier.server),
            livekit: since(self.livekit, earlier.livekit),
            postgres: self.postgres.saturating_sub(earlier.postgres),
            generator: self.generator.saturating_sub(earlier.generator),
        }
    }
}

impl Sample {
    /// `rows` is the number of rows that each accepted request inserts.
    #[expect(clippy::cast_precision_loss, reason = "a cell has fewer than 2^52 requests")]
    pub fn new(
        target: &'static str,
        cell: &Cell,
        answers: &Answers,
        rows: u32,
        costs: Costs,
    ) -> Self {
        let accepted = answers.latencies.len() as u64 * u64::from(rows);
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / accepted as f64;
        let is_service = costs.server.is_some();
        Self {
            target,
            work: cell.work,
            connections: cell.connections,
            accepted,
            refused: answers.refused,
            rate: accepted as f64 / answers.took.as_secs_f64(),
            p50_milliseconds: answers.quantile(0.5),
            p99_milliseconds: answers.quantile(0.99),
            server_cpu: costs.server.map(|usage| each(usage.cpu)),
            livekit_cpu: costs.livekit.map(|usage| each(usage.cpu)),
            postgres_cpu: each(costs.postgres),
            generator_cpu: is_service.then(|| each(costs.generator)),
            resident_megabytes: costs.server.map(|usage| usage.resident),
        }
    }
}

impl Work {
    pub fn stores_sessions(self) -> bool {
        matches!(self, Self::Start | Self::Room)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Start => "start",
            Self::Room => "room",
            Self::Get => "get",
            Self::List => "list",
        })
    }
}
