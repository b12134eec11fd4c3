//! Counts of passed and failed tests, summed over test programs.

use std::ops::AddAssign;

/// Number of tests that ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
}

impl Counts {
    /// Parses the output of `cargo test`: one `test result:` line per program.
    pub fn of(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines().filter(|line| line.starts_with("test result:")) {
            sum += Self {
                passed: number_before(line, " passed"),
                failed: number_before(line, " failed"),
            };
        }
        sum
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

fn number_before(line: &str, word: &str) -> u32 {
    let number =
        line.split_once(word).and_then(|(before, _)| before.split_whitespace().next_back());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_all_programs_are_summed() {
        let output = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; finished in 0.01s\n\
            test result: FAILED. 10 passed; 2 failed; 0 ignored; finished in 9.10s\n";
        assert_eq!(Counts::of(output), Counts { passed: 13, failed: 2 });
        assert_eq!(Counts::of("error: could not compile"), Counts::default());
    }
}
