//! A page in a browser without a screen, which has LiveKit's SDK and tells what it sees.

mod site;

pub use site::Site;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    place,
    process::{Guarded, Process},
    tools, wait_until,
};

/// What a browser takes to start, and a page to do what it is there for, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A browser is many processes: several that start at once keep a small machine from doing anything
/// else.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// An open page. Dropping it closes its browser.
#[derive(Debug)]
pub struct Page {
    site: Site,
    browser: Option<Process>,
    _turn: SemaphorePermit<'static>,
}

impl Site {
    /// Opens its page, in a browser of its own whose microphone and camera are faked, and tells it
    /// these settings. Waits for the page before to be closed.
    ///
    /// # Errors
    /// When the browser is missing.
    pub async fn open(self, settings: Value) -> Result<Page> {
        self.settle(settings);
        let program = tokio::task::spawn_blocking(tools::browser::program).await??;
        let turn = ONE_AT_A_TIME.acquire().await?;
        let home = place::temporary("browser", None)?;
        let browser = Guarded::new("browser", program, home.join("browser.log"))
            // Root is refused with a sandbox; what is opened here is ours.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])
            .args([
                "--no-first-run",
                "--no-default-browser-check",
                "--disable-background-networking",
            ])
            .args(["--disable-component-update", "--disable-sync", "--disable-breakpad"])
            .args([format!("--user-data-dir={}", home.join("profile").display())])
            .args([self.origin()])
            .env("HOME", &home)
            .removing(home)
            .start()?;
        Ok(Page { site: self, browser: Some(browser), _turn: turn })
    }
}

impl Page {
    /// What it told of this event the `nth` time, counted from zero, as soon as it did.
    ///
    /// # Errors
    /// When it told of an error instead, its browser died, or it told nothing in time.
    pub async fn tells(&mut self, event: &str, nth: usize) -> Result<Value> {
        let what = format!("the page to tell that it has {event}");
        let heard = wait_until(&what, PATIENCE, async || {
            let told = self.site.told();
            if let Some(error) = told.iter().find(|one| one["event"] == "error") {
                return Ok(Some(Err(error["message"].as_str().unwrap_or_default().to_owned())));
            }
            if let Some(Err(died)) = self.browser.as_mut().map(Process::check) {
                return Ok(Some(Err(died.to_string())));
            }
            let found = told.into_iter().filter(|one| one["event"] == event).nth(nth);
            Ok(found.map(Ok))
        });
        match heard.await.with_context(|| format!("it told {:?}", self.site.told()))? {
            Ok(told) => Ok(told),
            Err(error) => bail!("the page failed: {error}"),
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Its processes write into their profile until the last of them is gone: only then it can be
        // removed.
        if let Some(browser) = self.browser.take() {
            browser.kill().ok();
        }
    }
}
