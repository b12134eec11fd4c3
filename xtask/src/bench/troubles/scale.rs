//! The sizes of the measurement.

use std::time::Duration;

/// A size of the measurement.
pub struct Scale {
    /// Number of sessions in progress.
    pub sessions: usize,
    /// Number of rooms on the dead node.
    pub dead_rooms: usize,
    /// Number of maximum durations that end in each situation.
    pub deadlines: usize,
    /// Number of starts with an agent in each situation with starts.
    pub agents: u32,
    /// `GREENROOM_RECONCILE_SECONDS`.
    pub reconcile_seconds: u32,
    /// Time before the first situation: every session is checked once.
    pub settling: Duration,
    /// Duration of a situation with starts. The keeper first looks for an agent six seconds after
    /// its dispatch.
    pub situation: Duration,
    /// Duration of an outage of LiveKit. The longer it is, the later a keeper notices the recovery.
    pub outage: Duration,
    /// Time in which the deadlines and the starts of a situation are spread.
    pub spread: Duration,
    /// Time after the recovery in which the checks per second are counted.
    pub after_recovery: Duration,
    /// Maximum number of checks in one second after the recovery, divided by the rate without
    /// trouble. All keepers together then make at most 1,024 checks per second.
    pub max_burst: f64,
}

pub const FULL: Scale = Scale {
    sessions: 20_000,
    dead_rooms: 2_000,
    deadlines: 60,
    agents: 40,
    reconcile_seconds: 30,
    settling: Duration::from_secs(36),
    situation: Duration::from_secs(30),
    outage: Duration::from_secs(30),
    spread: Duration::from_secs(20),
    after_recovery: Duration::from_mins(1),
    max_burst: 2.5,
};

/// For the debug build, beside other checks.
pub const QUICK: Scale = Scale {
    sessions: 2_000,
    dead_rooms: 200,
    deadlines: 20,
    agents: 10,
    reconcile_seconds: 5,
    settling: Duration::from_secs(6),
    situation: Duration::from_secs(12),
    outage: Duration::from_secs(5),
    spread: Duration::from_secs(4),
    after_recovery: Duration::from_secs(8),
    max_burst: 4.0,
};
