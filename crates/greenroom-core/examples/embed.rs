//! Greenroom without HTTP: a Rust program starts, watches and ends a session with function calls.
//!
//! ```text
//! DATABASE_URL=… LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… \
//!     cargo run -p greenroom-core --example embed
//! ```
//!
//! While `cargo xtask dev` runs, `set -a; . target/dev/greenroom.env; set +a` sets these variables.
//! The program uses the organization's newest template, and waits for its agent if it has one.

use anyhow::Context;
use greenroom_core::domain::{
    OrganizationId, PageLimit, SessionTemplateId, TemplateName, WaitCondition, WaitSeconds,
};
use greenroom_core::{
    Caller, Config, Greenroom, KeyPair, LiveKitConfig, PageRequest, StartRequest, TemplateFilter,
    TemplateSettings,
};
use tokio::sync::oneshot;

/// How long the program waits for the agent.
const AGENT_TIMEOUT: WaitSeconds = WaitSeconds::constant::<10>();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let greenroom = Greenroom::new(configuration()?)?;
    greenroom.admin().migrate().await?;

    // The keeper reconciles sessions with LiveKit until `stop` is dropped.
    let (stop, stopped) = oneshot::channel::<()>();
    let keeper = tokio::spawn({
        let greenroom = greenroom.clone();
        async move { greenroom.run_keeper(async { drop(stopped.await) }).await }
    });
    let outcome = run_session(&greenroom).await;
    drop(stop);
    keeper.await.context("the keeper panicked")?;
    outcome
}

async fn run_session(greenroom: &Greenroom) -> anyhow::Result<()> {
    // The organization is one of your own tenants.
    let organization: OrganizationId = "0193b8a0-0000-7000-8000-0000000e3bed".parse()?;
    let caller = Caller::backend(organization);
    let template = find_or_create_template(greenroom, &caller).await?;
    let started = greenroom.start(&caller, StartRequest::new(template)).await?;
    let id = started.session.id;
    println!("session  {id} is {}", started.session.status);
    println!("room     {} at {}", started.session.room_name, started.livekit_url);
    println!("token    {} bytes until {}", started.access_token.len(), started.token_expiry);

    // Returns at once if the session has no agent.
    let ready = WaitCondition::AgentReady;
    let session = greenroom.wait_for_session(&caller, id, ready, AGENT_TIMEOUT).await?;
    println!("agent    {}", session.context("the session was not found")?.agent_status);

    let session = greenroom.end(&caller, id).await?.context("the session was not found")?;
    println!("session  {id} is {}", session.status);
    for entry in greenroom.timeline(&caller, id).await?.unwrap_or_default() {
        println!("event    {} {}", entry.at, entry.event);
    }
    Ok(())
}

async fn find_or_create_template(
    greenroom: &Greenroom,
    caller: &Caller,
) -> anyhow::Result<SessionTemplateId> {
    let newest = PageRequest::first(PageLimit::constant::<1>());
    let templates = greenroom.templates(caller, TemplateFilter::default(), newest).await?;
    if let Some(template) = templates.items.first() {
        return Ok(template.id);
    }
    let settings = TemplateSettings::new(TemplateName::try_from("Embedded".to_owned())?);
    Ok(greenroom.create_template(caller, settings).await?.id)
}

fn configuration() -> anyhow::Result<Config> {
    let key = KeyPair::new(
        variable("LIVEKIT_API_KEY")?.parse()?,
        variable("LIVEKIT_API_SECRET")?.parse()?,
    );
    let livekit = LiveKitConfig::new(variable("LIVEKIT_URL")?.parse()?, key);
    Ok(Config::new(variable("DATABASE_URL")?.parse()?, livekit))
}

#[expect(clippy::disallowed_methods, reason = "an example reads its configuration here")]
fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
