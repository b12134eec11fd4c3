//! Greenroom without HTTP: a Rust program starts a session with a function call.
//!
//! ```text
//! DATABASE_URL=… LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… \
//!     cargo run -p greenroom-core --example embed
//! ```
//!
//! While `cargo xtask dev` runs, `set -a; . target/dev/greenroom.env; set +a` sets these variables.

use anyhow::Context;
use greenroom_core::domain::{OrganizationId, TemplateName};
use greenroom_core::{
    Caller, Config, Greenroom, KeyPair, LiveKitConfig, PageRequest, StartRequest, TemplateFilter,
    TemplateSettings, migrate,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::new(
        variable("DATABASE_URL")?.into(),
        LiveKitConfig {
            url: variable("LIVEKIT_URL")?.parse()?,
            api_url: variable("LIVEKIT_URL")?.parse()?,
            key: KeyPair {
                api_key: variable("LIVEKIT_API_KEY")?.into(),
                api_secret: variable("LIVEKIT_API_SECRET")?.into(),
            },
            previous_key: None,
        },
    );
    migrate::run(&variable("DATABASE_URL")?).await?;
    let greenroom = Greenroom::new(config)?;

    // The organization is one of your own tenants.
    let organization: OrganizationId = "0193b8a0-0000-7000-8000-0000000e3bed".parse()?;
    let caller = Caller::backend(organization);
    let newest = PageRequest { limit: 1, ..PageRequest::default() };
    let templates = greenroom.templates(organization, TemplateFilter::default(), newest).await?;
    let template = match templates.items.into_iter().next() {
        Some(template) => template,
        None => {
            let name = TemplateName::try_from("Embedded".to_owned())?;
            greenroom.create_template(organization, TemplateSettings::new(name)).await?
        }
    };
    let started = greenroom.start(&caller, StartRequest::new(template.id)).await?;
    let session = greenroom
        .session(&caller, started.session.id)
        .await?
        .context("the session was not found")?;

    println!("session  {} is {}", session.id, session.status);
    println!("room     {} at {}", session.room_name, started.livekit_url);
    println!("token    {} bytes, valid until {}", started.access_token.len(), session.token_expiry);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "an example reads its configuration here")]
fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
