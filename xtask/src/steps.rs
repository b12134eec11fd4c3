//! Progress on the terminal: steps that run concurrently, each with one line for its result.

use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::sleep;

/// Time after which a running step becomes visible. A faster step shows only its result.
const PROGRESS_DELAY: Duration = Duration::from_secs(2);

/// Width of the column with the step's name.
const NAME_WIDTH: usize = 14;

/// A group of steps.
#[derive(Debug, Clone)]
pub struct Steps {
    /// `None` if standard output is not a terminal.
    bars: Option<MultiProgress>,
}

impl Steps {
    /// Creates a group that prints to standard output.
    pub fn new() -> Self {
        Self { bars: stdout().is_terminal().then(MultiProgress::new) }
    }

    /// Runs a step and prints its result. `progress` is shown if the step takes long. `work`
    /// returns its value and a summary for the result line.
    pub async fn run<T>(
        &self,
        name: &str,
        progress: &str,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = self.watch(name, progress, work).await;
        let summary = outcome.as_ref().map_or("failed", |(_, summary)| summary.as_str());
        self.ended(outcome.is_ok(), name, started.elapsed(), summary);
        Ok(outcome.with_context(|| format!("{name} failed"))?.0)
    }

    /// Runs `work` and shows `progress` if it takes long. Prints no result.
    pub async fn watch<T>(&self, name: &str, progress: &str, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        tokio::select! {
            outcome = &mut work => outcome,
            () = sleep(PROGRESS_DELAY) => {
                let bar = self.show_progress(name, progress);
                let outcome = work.await;
                bar.finish_and_clear();
                outcome
            }
        }
    }

    /// Prints the result of a step.
    pub fn ended(&self, passed: bool, name: &str, took: Duration, summary: &str) {
        let mark = if passed { "✓" } else { "✗" };
        let took = seconds(took);
        self.line(format!("  {mark} {name:<NAME_WIDTH$} {took:>8}  {summary}").trim_end());
    }

    /// Prints a further result of the last printed step.
    pub fn further_result(&self, passed: bool, summary: &str) {
        let mark = if passed { "✓" } else { "✗" };
        self.line(&format!("  {mark} {:<NAME_WIDTH$} {:>8}  {summary}", "", ""));
    }

    /// Prints a line above the progress bars.
    pub fn line(&self, line: &str) {
        match &self.bars {
            // The next redraw of the bars would overwrite a plain `println!`, and
            // `MultiProgress::println` prints nothing while there are no bars.
            Some(bars) => bars.suspend(|| print_line!("{line}")),
            None => print_line!("{line}"),
        }
    }

    fn show_progress(&self, name: &str, progress: &str) -> ProgressBar {
        let Some(bars) = &self.bars else {
            print_line!("  … {name:<NAME_WIDTH$} {:>8}  {progress}", "");
            return ProgressBar::hidden();
        };
        let style = ProgressStyle::with_template("  {spinner} {prefix} {elapsed:>8}  {msg}");
        let bar = ProgressBar::new_spinner()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let bar = bars.add(
            bar.with_elapsed(PROGRESS_DELAY)
                .with_prefix(format!("{name:<NAME_WIDTH$}"))
                .with_message(progress.to_owned()),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

/// Formats a duration in seconds: `0.4 s`, `93.0 s`.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}
