//! What is measured, and what it has to reach.

use std::fmt;
use std::pin::Pin;

use anyhow::Result;

use super::stage::Ground;
use super::{agent, deadlines, limits, waits, webhooks};

/// Something to measure.
pub struct Figure {
    pub name: &'static str,
    /// What is under way while it is measured.
    pub says: &'static str,
    pub measure: Measure,
}

type Measure = for<'a> fn(&'a Ground) -> Pin<Box<dyn Future<Output = Result<Vec<Finding>>> + 'a>>;

/// One measured number.
#[derive(Debug)]
pub struct Finding {
    pub measured: f64,
    pub reach: Reach,
    pub unit: Unit,
    /// Of what it is the measure.
    pub says: String,
}

#[derive(Debug, Clone, Copy)]
pub enum Reach {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Times,
    Milliseconds,
    Seconds,
    PercentOfACore,
    PerSecond,
    Megabytes,
}

/// Every figure of the keeper's.
pub fn of_keeper() -> Vec<Figure> {
    vec![
        figure("agent", "sending for agents, by a start and by hand", |ground| {
            Box::pin(agent::measure(ground))
        }),
        figure("deadlines", "keeping ten thousand sessions", |ground| {
            Box::pin(deadlines::measure(ground))
        }),
        figure("webhooks", "telling of users who come and go", |ground| {
            Box::pin(webhooks::measure(ground))
        }),
        figure("waits", "holding a thousand requests", |ground| Box::pin(waits::measure(ground))),
    ]
}

/// Every figure of a start's.
pub fn of_starts() -> Vec<Figure> {
    vec![figure("limits", "starting in turns, with limits and without", |ground| {
        Box::pin(limits::measure(ground))
    })]
}

fn figure(name: &'static str, says: &'static str, measure: Measure) -> Figure {
    Figure { name, says, measure }
}

impl Finding {
    pub fn reaches(&self) -> bool {
        match self.reach {
            Reach::AtMost(bound) => self.measured <= bound,
            Reach::AtLeast(bound) => self.measured >= bound,
        }
    }
}

impl fmt::Display for Finding {
    /// Columns, as wide as their heads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reach = match self.reach {
            Reach::AtMost(bound) => format!("at most {}", self.unit.tell(bound)),
            Reach::AtLeast(bound) => format!("at least {}", self.unit.tell(bound)),
        };
        write!(f, "{:>12}   {reach:<18} {}", self.unit.tell(self.measured), self.says)
    }
}

impl Unit {
    fn tell(self, value: f64) -> String {
        match self {
            Self::Times => format!("{value:.2} ×"),
            Self::Milliseconds => format!("{value:.0} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::PercentOfACore => format!("{value:.1} %"),
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Megabytes => format!("{value:.1} MB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_on_its_own_side_only() {
        let reaches = |measured, reach| {
            Finding { measured, reach, unit: Unit::PerSecond, says: String::new() }.reaches()
        };
        assert!(reaches(2_000.0, Reach::AtLeast(2_000.0)));
        assert!(!reaches(1_999.9, Reach::AtLeast(2_000.0)));
        assert!(reaches(60.0, Reach::AtMost(60.0)));
        assert!(!reaches(60.1, Reach::AtMost(60.0)));
        assert!(!reaches(f64::NAN, Reach::AtMost(60.0)), "what is no number reaches nothing");
    }
}
