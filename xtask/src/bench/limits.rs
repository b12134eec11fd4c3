//! The cost of limits and of resumed sessions: three kinds of starts in alternating rounds.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use uuid::Uuid;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::start_load::StartLoad;
use super::starts;
use super::statistics::median;
use crate::api::{Api, ORGANIZATION};

const ROUNDS: usize = 12;

const ROUND_DURATION: Duration = Duration::from_secs(1);

/// A resumed session is one statement, like a new one.
const RESUMED: f64 = 0.8;

/// Minimum rate with a limit, divided by the rate without one. The statements of a limited organization
/// run one at a time behind a row lock, but many starts share each.
const LIMITED: f64 = 0.8;

/// Number of open sessions of the limited organization before the measurement. If each start counted
/// them, the rate would miss [`LIMITED`].
const OPEN_SESSIONS: usize = 100_000;

const LIMITED_ORGANIZATION: Uuid = Uuid::from_u128(0x0190_d3a0_0000_7000_8000_0000_0000_11ed);

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    // The keeper observes these sessions only after the measurement.
    let settings = [("GREENROOM_RECONCILE_SECONDS", "3600")];
    let deployment = Deployment::start(env, "limits", &settings).await?;
    let loads = [
        StartLoad::plain(&deployment).await?,
        resumed(&deployment).await?,
        limited(&deployment, &env.client).await?,
    ];
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // The order alternates, so that no load always follows the same one.
        let order = if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        for load in order {
            rates[load].push(loads[load].run(ROUND_DURATION).await?);
        }
    }
    let [plain, resumed, limited] = rates.map(|rates| median(&rates));
    Ok(vec![
        Measurement {
            measured: resumed / plain,
            threshold: Threshold::AtLeast(RESUMED),
            unit: Unit::Times,
            description: format!("{resumed:.0} resumed sessions/s, {plain:.0} plain starts/s"),
        },
        Measurement {
            measured: limited / plain,
            threshold: Threshold::AtLeast(LIMITED),
            unit: Unit::Times,
            description: format!(
                "{limited:.0} starts/s of one organization with a limit and {OPEN_SESSIONS} open sessions"
            ),
        },
    ])
}

/// Starts by end users. Each user gets the same session each time.
async fn resumed(deployment: &Deployment) -> Result<StartLoad> {
    let template = json!({ "name": "Resumed", "room_creation": "on_join" });
    let template = deployment.api.create_template(&template).await?;
    let user = |number| deployment.service.token_of_user(ORGANIZATION, &format!("user-{number}"));
    Ok(StartLoad::new(deployment, &template, user))
}

/// Starts by a backend of an organization with a limit that it does not reach.
async fn limited(deployment: &Deployment, client: &reqwest::Client) -> Result<StartLoad> {
    let api = Api::of_organization(&deployment.service, client, LIMITED_ORGANIZATION);
    let template = json!({ "name": "Limited", "room_creation": "on_join" });
    let template = api.create_template(&template).await?;
    let limit = format!(
        "update organizations set max_active_sessions = 1000000000 where id = '{LIMITED_ORGANIZATION}'"
    );
    let updated = deployment.sql.execute(&limit, &[]).await?;
    ensure!(updated == 1, "the organization to limit has no row");
    starts::start_sessions(&api, &template, OPEN_SESSIONS).await?;
    Ok(StartLoad::new(deployment, &template, |_| deployment.service.token_of(LIMITED_ORGANIZATION)))
}
