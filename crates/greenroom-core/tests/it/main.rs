//! The use cases on a real PostgreSQL. Most tests use rooms in memory; `crash` uses a real LiveKit.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, like the tests")]

mod authorization;
mod buckets;
mod clock;
mod crash;
mod garbage;
mod gated_rooms;
mod halting_proxy;
mod keeper;
mod keys;
mod killed_backends;
mod lease_crash;
mod livekit_trouble;
mod mixes;
mod next_version;
mod outages;
mod reads_together;
mod room_names;
mod rooms_together;
mod shutdown;
mod start;
mod starts_together;
mod templates;
mod tenancy;

use std::sync::Arc;

use greenroom_core::domain::{OrganizationId, RoomCreation, SessionTemplateId, TemplateName};
use greenroom_core::{
    Builder, Caller, Config, Greenroom, KeyPair, LiveKitConfig, MemoryRooms, TemplateSettings,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::random_hex;

/// Makes each insert of a session survive a cancel request, as a commit does that waits for its
/// flush. PostgreSQL signals the backend twice per request, so the handler may be canceled as well.
const STALLED_INSERTS: &str = "create function stall() returns trigger language plpgsql as $$
       begin
         begin perform pg_sleep(30); exception when query_canceled then
           begin perform pg_sleep(0.5); exception when query_canceled then
             perform pg_sleep(0.5);
           end;
         end;
         return null;
       end $$;
     create trigger stall after insert on sessions for each row execute function stall()";

/// Returns the builder of a service with rooms in memory.
fn service(database: &Database, rooms: &Arc<MemoryRooms>) -> Builder {
    Greenroom::builder(config(database)).rooms(rooms.clone())
}

fn config(database: &Database) -> Config {
    config_with_livekit(database, "ws://livekit.test")
}

fn config_with_livekit(database: &Database, url: &str) -> Config {
    let secret = "a secret of at least thirty-two bytes".parse().unwrap();
    let key = KeyPair::new("key".parse().unwrap(), secret);
    let livekit = LiveKitConfig::new(url.parse().unwrap(), key);
    Config::new(database.url().parse().unwrap(), livekit)
}

fn organization() -> OrganizationId {
    let random = u128::from_str_radix(&random_hex().unwrap(), 16).unwrap();
    OrganizationId(uuid::Uuid::from_u128(random))
}

fn template(name: &str) -> TemplateSettings {
    TemplateSettings::new(TemplateName::try_from(name.to_owned()).unwrap())
}

/// Creates a template whose sessions open no room at the start.
async fn on_join_template(greenroom: &Greenroom, caller: &Caller) -> SessionTemplateId {
    let mut settings = template("On join");
    settings.room_creation = RoomCreation::OnJoin.into();
    greenroom.create_template(caller, settings).await.unwrap().id
}
