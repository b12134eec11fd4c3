//! The times until the agents of started sessions are seen.

use anyhow::Result;

use crate::bench::deployment::Deployment;
use crate::bench::figure::{Measurement, Threshold, Unit};

/// Maximum of a time, divided by that without trouble, in addition to [`KEEPER_TICK`].
const MAX_RATIO: f64 = 1.2;

/// Interval between two searches for due sessions, in seconds. By chance, a session waits up to this
/// long.
const KEEPER_TICK: f64 = 0.25;

/// The seconds from each start until its agent was seen, ascending, with nulls last.
const AGENT_TIMES: &str = "
    select coalesce(array_agg(seconds order by seconds), '{}') from (
      select extract(epoch from min(joined.at) - sessions.created_at)::float8 as seconds
      from sessions left join session_events joined on joined.session_id = sessions.id
        and joined.event = 'agent_joined'
      where sessions.id = any($1::text[]::uuid[]) group by sessions.id, sessions.created_at) times";

/// The times of one situation.
pub struct AgentTimes {
    /// The times of agents that were seen, in seconds, ascending.
    seen: Vec<f64>,
    /// Number of sessions whose agent was not seen.
    missing: usize,
}

impl AgentTimes {
    /// The times of these sessions.
    pub async fn of(deployment: &Deployment, sessions: &[String]) -> Result<Self> {
        let row = deployment.sql.query_one(AGENT_TIMES, &[&sessions]).await?;
        let times: Vec<Option<f64>> = row.try_get(0)?;
        let seen: Vec<f64> = times.into_iter().flatten().collect();
        let missing = sessions.len() - seen.len();
        Ok(Self { seen, missing })
    }

    /// Compares the median, the 95th percentile and the maximum with those without trouble.
    pub fn compare(&self, baseline: &Self, situation: &str) -> Vec<Measurement> {
        let percentiles = [(50, "median"), (95, "95th percentile"), (100, "maximum")];
        let mut measurements: Vec<_> = percentiles
            .into_iter()
            .map(|(percent, name)| {
                let expected = baseline.percentile(percent);
                Measurement {
                    measured: self.percentile(percent),
                    threshold: Threshold::AtMost(MAX_RATIO * expected + KEEPER_TICK),
                    unit: Unit::Seconds,
                    description: format!(
                        "{situation}: {name} until one of {} agents elsewhere is seen; without trouble {expected:.2} s",
                        self.seen.len()
                    ),
                }
            })
            .collect();
        measurements.push(Measurement {
            measured: f64::from(u32::try_from(self.missing + baseline.missing).unwrap_or(u32::MAX)),
            threshold: Threshold::AtMost(0.0),
            unit: Unit::Count,
            description: format!(
                "{situation}: agents that were not seen, there and without trouble"
            ),
        });
        measurements
    }

    /// The smallest time that this percentage of the times does not exceed; NaN of no times.
    fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.seen.len() * percent).div_ceil(100);
        self.seen.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(seen: &[f64]) -> AgentTimes {
        AgentTimes { seen: seen.to_vec(), missing: 0 }
    }

    fn passes(dead: &AgentTimes, baseline: &AgentTimes) -> Vec<bool> {
        dead.compare(baseline, "dead node").iter().map(Measurement::passes).collect()
    }

    #[test]
    fn each_percentile_is_compared_with_that_without_trouble() {
        let baseline = times(&[6.0; 40]);
        let late_by = |late: usize| times(&[vec![6.0; 40 - late], vec![7.5; late]].concat());
        assert_eq!(passes(&late_by(0), &baseline), [true, true, true, true]);
        assert_eq!(passes(&late_by(1), &baseline), [true, true, false, true]);
        assert_eq!(passes(&late_by(3), &baseline), [true, false, false, true]);
        assert_eq!(passes(&late_by(21), &baseline), [false, false, false, true]);
        assert_eq!(passes(&times(&[7.44; 40]), &baseline), [true; 4], "within the keeper's tick");
    }

    #[test]
    fn missing_agent_fails() {
        let missing = AgentTimes { seen: vec![6.0; 39], missing: 1 };
        assert_eq!(passes(&missing, &times(&[6.0; 40])), [true, true, true, false]);
        assert_eq!(passes(&times(&[]), &times(&[])), [false, false, false, true]);
    }
}
