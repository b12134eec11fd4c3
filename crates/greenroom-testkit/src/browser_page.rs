//! A page with LiveKit's SDK in a headless browser, which reports what happens to the test.

mod site;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::process::{GuardedCommand, Process};
use crate::{paths, tools, wait_until};

pub use self::site::Site;

/// Maximum time until a page sends a report, including the start of the browser on a busy machine.
const REPORT_TIMEOUT: Duration = Duration::from_mins(1);

/// Allows one browser at a time. A browser has many processes, and several starting browsers would
/// overload a small machine.
static BROWSER_LIMIT: Semaphore = Semaphore::const_new(1);

/// An open page. Dropping it closes the browser.
#[derive(Debug)]
pub struct BrowserPage {
    site: Site,
    browser: Option<Process>,
    _permit: SemaphorePermit<'static>,
}

impl Site {
    /// Opens the page in a separate browser with a fake microphone and camera. The page's script
    /// can read `settings`. Waits until any other page of this process is closed.
    ///
    /// # Errors
    /// Returns an error if the browser is missing.
    pub async fn open(self, settings: Value) -> Result<BrowserPage> {
        self.set_settings(settings);
        let program = tokio::task::spawn_blocking(tools::browser::program).await??;
        let permit = BROWSER_LIMIT.acquire().await?;
        let directory = paths::create_temp_dir("browser", None)?;
        let browser = GuardedCommand::new("browser", program, directory.join("browser.log"))
            // Chromium refuses to run as root with a sandbox. The pages are trusted.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])
            .args([
                "--no-first-run",
                "--no-default-browser-check",
                "--disable-background-networking",
            ])
            .args(["--disable-component-update", "--disable-sync", "--disable-breakpad"])
            .args([format!("--user-data-dir={}", directory.join("profile").display())])
            .args([self.origin()])
            .env("HOME", &directory)
            .remove_on_stop(directory)
            .start()?;
        Ok(BrowserPage { site: self, browser: Some(browser), _permit: permit })
    }
}

impl BrowserPage {
    /// Waits for the page's report number `index` (from zero) of this event and returns it.
    ///
    /// # Errors
    /// Returns an error if the page reports an error, the browser exits, or the report does not
    /// arrive within a minute.
    pub async fn wait_for_report(&mut self, event: &str, index: usize) -> Result<Value> {
        let what = format!("the page to report {event}");
        let result = wait_until(&what, REPORT_TIMEOUT, async || {
            let reports = self.site.reports();
            if let Some(error) = reports.iter().find(|report| report["event"] == "error") {
                return Ok(Some(Err(error["message"].as_str().unwrap_or_default().to_owned())));
            }
            if let Some(Err(exited)) = self.browser.as_mut().map(Process::ensure_running) {
                return Ok(Some(Err(exited.to_string())));
            }
            let found = reports.into_iter().filter(|report| report["event"] == event).nth(index);
            Ok(found.map(Ok))
        });
        match result
            .await
            .with_context(|| format!("the page has reported {:?}", self.site.reports()))?
        {
            Ok(report) => Ok(report),
            Err(error) => bail!("the page failed: {error}"),
        }
    }
}

impl Drop for BrowserPage {
    fn drop(&mut self) {
        // `kill` waits until all processes of the browser have exited. Until then they write into
        // the profile, and it cannot be removed.
        if let Some(browser) = self.browser.take() {
            browser.kill().ok();
        }
    }
}
