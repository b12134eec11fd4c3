//! Room name suffixes of one process: all 2^24 are distinct.

use std::time::Instant;

use anyhow::{Result, ensure};
use greenroom_domain::SuffixSequence;

use super::figure::{Measurement, Threshold, Unit};

const SUFFIXES: u32 = 1 << 24;

const SECONDS: f64 = 2.0;

pub fn measure() -> Result<Vec<Measurement>> {
    let begun = Instant::now();
    let sequence = SuffixSequence::new(0xdead_beef, 0x1234_5678);
    let mut seen = vec![false; usize::try_from(SUFFIXES)?];
    for position in 0..SUFFIXES {
        let suffix = usize::try_from(sequence.suffix(position))?;
        ensure!(!seen[suffix], "suffix {suffix:06x} repeats at position {position}");
        seen[suffix] = true;
    }
    Ok(vec![Measurement {
        measured: begun.elapsed().as_secs_f64(),
        threshold: Threshold::AtMost(SECONDS),
        unit: Unit::Seconds,
        description: format!("for {SUFFIXES} suffixes, none twice"),
    }])
}
