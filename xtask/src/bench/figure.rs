//! Figures: measurements with their units and thresholds.

use std::fmt;
use std::pin::Pin;

use anyhow::Result;

use super::deployment::BenchEnv;

/// A named measurement with its thresholds.
pub struct Figure {
    pub name: &'static str,
    /// Shown while the measurement runs.
    pub description: &'static str,
    pub measure: Measure,
}

/// Measures a figure. A function pointer, because the figures are a table.
pub type Measure =
    for<'a> fn(&'a BenchEnv) -> Pin<Box<dyn Future<Output = Result<Vec<Measurement>>> + 'a>>;

/// One measured number.
#[derive(Debug)]
pub struct Measurement {
    pub measured: f64,
    pub threshold: Threshold,
    pub unit: Unit,
    /// The quantity, and the numbers from which it was calculated.
    pub description: String,
}

#[derive(Debug, Clone, Copy)]
pub enum Threshold {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Times,
    Microseconds,
    Milliseconds,
    Seconds,
    Percent,
    PerSecond,
    Megabytes,
    Count,
}

impl Measurement {
    pub fn passes(&self) -> bool {
        match self.threshold {
            Threshold::AtMost(bound) => self.measured <= bound,
            Threshold::AtLeast(bound) => self.measured >= bound,
        }
    }
}

impl fmt::Display for Measurement {
    /// Columns as wide as the table's head.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = match self.threshold {
            Threshold::AtMost(bound) => format!("at most {}", self.unit.format(bound)),
            Threshold::AtLeast(bound) => format!("at least {}", self.unit.format(bound)),
        };
        write!(f, "{:>12}   {threshold:<18} {}", self.unit.format(self.measured), self.description)
    }
}

impl Unit {
    fn format(self, value: f64) -> String {
        match self {
            Self::Times => format!("{value:.2} ×"),
            Self::Microseconds => format!("{value:.1} µs"),
            Self::Milliseconds => format!("{value:.0} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Percent => format!("{value:.1} %"),
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Megabytes => format!("{value:.1} MB"),
            // Decimals only if they are not zero.
            Self::Count => ((value * 100.0).round() / 100.0).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_bounds_one_side() {
        let passes = |measured, threshold| {
            Measurement { measured, threshold, unit: Unit::PerSecond, description: String::new() }
                .passes()
        };
        assert!(passes(2_000.0, Threshold::AtLeast(2_000.0)));
        assert!(!passes(1_999.9, Threshold::AtLeast(2_000.0)));
        assert!(passes(60.0, Threshold::AtMost(60.0)));
        assert!(!passes(60.1, Threshold::AtMost(60.0)));
        assert!(!passes(f64::NAN, Threshold::AtMost(60.0)), "NaN passes no threshold");
    }
}
