//! The medians of all rounds: as a table, as JSON, and as a plot.

use anyhow::Result;
use serde_json::json;

use super::sample::{Sample, Work};
use super::{GO, plot};
use crate::bench::deployment::BenchEnv;
use crate::bench::statistics::median;

/// The samples of all rounds.
pub struct Report {
    samples: Vec<Sample>,
    /// One sample per target and cell, in the order of the first round. Its numbers are medians.
    medians: Vec<Sample>,
}

impl Report {
    pub fn new(samples: Vec<Sample>) -> Self {
        let mut medians: Vec<Sample> = Vec::new();
        for sample in &samples {
            if !medians.iter().any(|known| known.is_same_cell(sample)) {
                let rounds: Vec<_> =
                    samples.iter().filter(|other| other.is_same_cell(sample)).collect();
                medians.push(Sample::median_of(sample, &rounds));
            }
        }
        Self { samples, medians }
    }

    /// Returns the medians of a cell. `None` if it was not measured.
    pub fn cell(&self, target: &str, work: Work, connections: usize) -> Option<&Sample> {
        self.of(target, work).find(|sample| sample.connections == connections)
    }

    /// Returns the medians of a target by connections.
    pub fn of(&self, target: &str, work: Work) -> impl Iterator<Item = &Sample> {
        self.medians.iter().filter(move |sample| sample.target == target && sample.work == work)
    }

    /// Prints the table, and writes `<name>.json` and, for plain starts, `<name>.svg`.
    pub fn publish(&self, env: &BenchEnv, name: &str) -> Result<()> {
        for line in self.table() {
            env.steps.line(&line);
        }
        std::fs::create_dir_all(&env.home)?;
        let json = json!({ "medians": self.medians, "samples": self.samples });
        let file = env.home.join(name).with_extension("json");
        std::fs::write(file, serde_json::to_string_pretty(&json)?)?;
        let series = self.series();
        if !series.is_empty() {
            std::fs::write(env.home.join(name).with_extension("svg"), plot::svg(&series))?;
        }
        Ok(())
    }

    /// The rates of plain starts by connections.
    fn series(&self) -> Vec<plot::Series> {
        let mut series: Vec<plot::Series> = Vec::new();
        for sample in self.medians.iter().filter(|sample| sample.work == Work::Start) {
            let point = (sample.connections, sample.rate);
            match series.iter_mut().find(|known| known.name == sample.target) {
                Some(known) => known.points.push(point),
                None => series.push(plot::Series { name: sample.target, points: vec![point] }),
            }
        }
        series
    }

    fn table(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "  {:<6}{:>5}  {:<13}{:>9}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>10}{:>8}{:>9}",
            "work",
            "conn",
            "target",
            "per s",
            "÷ Go",
            "p50 ms",
            "p99 ms",
            "server",
            "postgres",
            "livekit",
            "generator",
            "MB",
            "refused"
        )];
        let mut medians: Vec<_> = self.medians.iter().collect();
        // Stable: keeps the order of the targets.
        medians.sort_by_key(|sample| (sample.work as u8, sample.connections));
        for sample in medians {
            let go = self.cell(GO, sample.work, sample.connections);
            let ratio = go.map(|go| sample.rate / go.rate);
            lines.push(format!(
                "  {:<6}{:>5}  {:<13}{:>9.0}{:>8}{:>9.2}{:>9.2}{:>9}{:>9.1}{:>9}{:>10}{:>8}{:>9}",
                sample.work,
                sample.connections,
                sample.target,
                sample.rate,
                optional(ratio, 2),
                sample.p50_milliseconds,
                sample.p99_milliseconds,
                optional(sample.server_cpu, 1),
                sample.postgres_cpu,
                optional(sample.livekit_cpu, 1),
                optional(sample.generator_cpu, 1),
                optional(sample.resident_megabytes, 1),
                sample.refused
            ));
        }
        lines.push("  CPU times are microseconds per request, of all processes.".to_owned());
        lines
    }
}

fn optional(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "–".to_owned(), |number| format!("{number:.digits$}"))
}

impl Sample {
    fn is_same_cell(&self, other: &Self) -> bool {
        (self.target, self.work, self.connections) == (other.target, other.work, other.connections)
    }

    /// Returns the median of each number. The counts are sums.
    fn median_of(first: &Self, rounds: &[&Self]) -> Self {
        let of = |number: fn(&Self) -> f64| {
            median(&rounds.iter().map(|sample| number(sample)).collect::<Vec<_>>())
        };
        let of_optional = |number: fn(&Self) -> Option<f64>| {
            let numbers: Option<Vec<_>> = rounds.iter().map(|sample| number(sample)).collect();
            numbers.map(|numbers| median(&numbers))
        };
        Self {
            target: first.target,
            work: first.work,
            connections: first.connections,
            accepted: rounds.iter().map(|sample| sample.accepted).sum(),
            refused: rounds.iter().map(|sample| sample.refused).sum(),
            rate: of(|sample| sample.rate),
            p50_milliseconds: of(|sample| sample.p50_milliseconds),
            p99_milliseconds: of(|sample| sample.p99_milliseconds),
            server_cpu: of_optional(|sample| sample.server_cpu),
            livekit_cpu: of_optional(|sample| sample.livekit_cpu),
            postgres_cpu: of(|sample| sample.postgres_cpu),
            generator_cpu: of_optional(|sample| sample.generator_cpu),
            resident_megabytes: of_optional(|sample| sample.resident_megabytes),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A sample of plain starts with this rate.
    pub fn sample(target: &'static str, connections: usize, rate: f64) -> Sample {
        Sample {
            target,
            work: Work::Start,
            connections,
            accepted: 10,
            refused: 1,
            rate,
            p50_milliseconds: 1.0,
            p99_milliseconds: 2.0,
            server_cpu: Some(40.0),
            livekit_cpu: None,
            postgres_cpu: 50.0,
            generator_cpu: None,
            resident_megabytes: Some(20.0),
        }
    }

    #[test]
    fn medians_are_per_target_and_cell() {
        let rates = [
            ("Go", 64, 3.0),
            ("Go", 64, 1.0),
            ("Go", 1, 9.0),
            ("Greenroom", 64, 8.0),
            ("Go", 64, 2.0),
        ];
        let samples = rates.map(|(target, connections, rate)| sample(target, connections, rate));
        let report = Report::new(samples.to_vec());
        let go = report.cell("Go", Work::Start, 64).unwrap();
        assert!((go.rate - 2.0).abs() < f64::EPSILON, "{go:?}");
        assert_eq!((go.accepted, go.refused), (30, 3));
        assert!(report.cell("Greenroom", Work::Start, 1).is_none());
        let table = report.table().join("\n");
        assert!(table.contains("4.00"), "Greenroom is four times as fast: {table}");
    }

    #[test]
    fn columns_of_the_table_are_aligned() {
        let report = Report::new(vec![sample("Go", 1, 9.0), sample("Greenroom", 512, 12_345.6)]);
        let table = report.table();
        let widths: Vec<_> = table[..3].iter().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
    }
}
