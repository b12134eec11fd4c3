//! Steps that run side by side, each a line with its duration; on a terminal one sees them work.

use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::sleep;

/// Steps shorter than this show only their result.
const SILENCE: Duration = Duration::from_secs(2);

/// The width of a step's name.
const NAME: usize = 14;

/// A group of steps.
#[derive(Debug)]
pub struct Steps {
    bars: Option<MultiProgress>,
}

impl Steps {
    /// Steps that are shown on standard output.
    pub fn new() -> Self {
        Self { bars: stdout().is_terminal().then(MultiProgress::new) }
    }

    /// Runs one step: `busy` says what takes so long when it does, the outcome comes with what to
    /// say of it.
    pub async fn run<T>(
        &self,
        name: &str,
        busy: &str,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = self.watch(name, busy, work).await;
        let said = outcome.as_ref().map_or("failed", |(_, said)| said.as_str());
        self.ended(outcome.is_ok(), name, started.elapsed(), said);
        Ok(outcome.with_context(|| format!("{name} failed"))?.0)
    }

    /// Does some work and shows, once it takes long, that it is under way.
    pub async fn watch<T>(&self, name: &str, busy: &str, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        tokio::select! {
            outcome = &mut work => outcome,
            () = sleep(SILENCE) => {
                let bar = self.show_busy(name, busy);
                let outcome = work.await;
                bar.finish_and_clear();
                outcome
            }
        }
    }

    /// The line of what has ended.
    pub fn ended(&self, well: bool, name: &str, took: Duration, said: &str) {
        let mark = if well { "✓" } else { "✗" };
        self.line(format!("  {mark} {name:<NAME$} {:>8}  {said}", seconds(took)).trim_end());
    }

    /// One more line of what has ended.
    pub fn also(&self, well: bool, said: &str) {
        let mark = if well { "✓" } else { "✗" };
        self.line(&format!("  {mark} {:<NAME$} {:>8}  {said}", "", ""));
    }

    /// A line past the bars.
    pub fn line(&self, line: &str) {
        match &self.bars {
            // A line printed past the bars would be drawn over; without bars to draw it, it would
            // be lost.
            Some(bars) => bars.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    fn show_busy(&self, name: &str, busy: &str) -> ProgressBar {
        let Some(bars) = &self.bars else {
            println!("  … {name:<NAME$} {:>8}  {busy}", "");
            return ProgressBar::hidden();
        };
        let style = ProgressStyle::with_template("  {spinner} {prefix} {elapsed:>8}  {msg}");
        let bar = ProgressBar::new_spinner()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let bar = bars.add(
            bar.with_elapsed(SILENCE)
                .with_prefix(format!("{name:<NAME$}"))
                .with_message(busy.to_owned()),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

/// A duration for people: `0.4 s`, `93.0 s`.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}
