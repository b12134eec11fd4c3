//! What the comparison requires of Greenroom.

use super::report::Report;
use super::sample::{Sample, Work};
use super::{GO, GREENROOM, PGBENCH};
use crate::bench::figure::{Measurement, Threshold, Unit};

/// Connections at which Greenroom must be faster than Go by [`STARTS`].
const LOADED: [usize; 2] = [64, 128];

/// Minimum ratio of the rates of plain starts.
const STARTS: f64 = 2.5;

/// Minimum ratio of the rates of reads.
const READS: f64 = 1.5;

/// Minimum ratio of the rates of starts that open a room.
const ROOMS: f64 = 1.25;

/// Maximum CPU time of the service per start, in microseconds.
const SERVER_CPU: f64 = 30.0;

pub const ROOM_CONNECTIONS: usize = 16;

/// Returns the measurements of the cells that were measured.
pub fn of_plain_starts(report: &Report) -> Vec<Measurement> {
    let loaded = LOADED.map(|connections| against_go(report, Work::Start, connections, STARTS));
    let others = [
        best_rate(report),
        latency(report),
        server_cpu(report),
        against_go(report, Work::Get, 64, READS),
        against_go(report, Work::List, 16, READS),
    ];
    loaded.into_iter().chain(others).flatten().collect()
}

/// Returns the measurement of starts that open a room.
pub fn of_rooms(report: &Report) -> Vec<Measurement> {
    let costs = [GREENROOM, GO].map(|target| {
        let sample = report.cell(target, Work::Room, ROOM_CONNECTIONS)?;
        Some(sample.server_cpu? + sample.livekit_cpu? + sample.postgres_cpu)
    });
    let [greenroom, go] = costs.map(|cost| cost.unwrap_or(f64::NAN));
    let against_go = against_go(report, Work::Room, ROOM_CONNECTIONS, ROOMS);
    let with_costs = |measurement: Measurement| Measurement {
        description: format!(
            "{}; CPU time of service, PostgreSQL and LiveKit {greenroom:.0} µs against {go:.0} µs",
            measurement.description
        ),
        ..measurement
    };
    against_go.map(with_costs).into_iter().collect()
}

fn both(report: &Report, work: Work, connections: usize) -> Option<(&Sample, &Sample)> {
    report.cell(GREENROOM, work, connections).zip(report.cell(GO, work, connections))
}

fn against_go(
    report: &Report,
    work: Work,
    connections: usize,
    minimum: f64,
) -> Option<Measurement> {
    let (greenroom, go) = both(report, work, connections)?;
    Some(Measurement {
        measured: greenroom.rate / go.rate,
        threshold: Threshold::AtLeast(minimum),
        unit: Unit::Times,
        description: format!(
            "Go, {work} at {connections} connections: {:.0} /s against {:.0} /s",
            greenroom.rate, go.rate
        ),
    })
}

fn best_rate(report: &Report) -> Option<Measurement> {
    let best = |target| report.of(target, Work::Start).map(|sample| sample.rate).reduce(f64::max);
    let (greenroom, pgbench) = best(GREENROOM).zip(best(PGBENCH))?;
    Some(Measurement {
        measured: greenroom / pgbench,
        threshold: Threshold::AtLeast(1.0),
        unit: Unit::Times,
        description: format!(
            "pgbench's inserts of one row, best cells: {greenroom:.0} /s against {pgbench:.0} /s"
        ),
    })
}

fn latency(report: &Report) -> Option<Measurement> {
    let (greenroom, go) = both(report, Work::Start, 1)?;
    Some(Measurement {
        measured: greenroom.p50_milliseconds / go.p50_milliseconds,
        threshold: Threshold::AtMost(1.0),
        unit: Unit::Times,
        description: format!(
            "Go's median latency at one connection: {:.2} ms against {:.2} ms",
            greenroom.p50_milliseconds, go.p50_milliseconds
        ),
    })
}

fn server_cpu(report: &Report) -> Option<Measurement> {
    Some(Measurement {
        measured: report.cell(GREENROOM, Work::Start, 64)?.server_cpu?,
        threshold: Threshold::AtMost(SERVER_CPU),
        unit: Unit::Microseconds,
        description: "of the service's CPU time per start at 64 connections".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn thresholds_bind_the_measured_cells() {
        let report = Report::new(vec![
            sample(GREENROOM, 64, 2_500.0),
            sample(GO, 64, 1_000.0),
            sample(PGBENCH, 64, 2_600.0),
            sample(GREENROOM, 1, 10.0),
            sample(GO, 1, 10.0),
        ]);
        let passes: Vec<_> = of_plain_starts(&report).iter().map(Measurement::passes).collect();
        // Starts at 64, the best rate, latency, and 40 µs of CPU time; 128 was not measured.
        assert_eq!(passes, [true, false, true, false]);
        assert!(of_rooms(&report).is_empty());
    }
}
