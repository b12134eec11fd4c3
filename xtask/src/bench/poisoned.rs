//! Starts of which every hundredth must be refused: the others succeed, at nearly the same rate.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use uuid::Uuid;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::statistics::Ratio;
use super::varied_load::{Prepared, VariedLoad, start_request};
use crate::api::{Api, ORGANIZATION};

const CONNECTIONS: usize = 128;

/// One of this number of requests must be refused.
const INTERVAL: usize = 100;

/// Number of pairs of rounds with and without bad requests.
const ROUNDS: usize = 12;

/// The order of the loads in a round: the clean load is 0. A drift of the machine affects both alike.
const ORDER: [usize; 4] = [0, 1, 1, 0];

/// Minimum rate of accepted starts, divided by the rate without bad requests.
const RATIO: f64 = 0.9;

const KEY: &str = "poisoned";

const FULL_ORGANIZATION: Uuid = Uuid::from_u128(0x0190_d3a0_0000_7000_8000_0000_0000_0f11);

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    // The keeper observes these sessions only after the measurement.
    let settings = [("GREENROOM_RECONCILE_SECONDS", "3600")];
    let deployment = Deployment::start(env, "poisoned", &settings).await?;
    let template = deployment.api.create_template(&template()).await?;
    let bad = bad_requests(&deployment, env, &template).await?;
    let body = json!({ "session_template_id": template, "user_id": "ann" }).to_string();
    let good = start_request(&deployment.service.token_of(ORGANIZATION), "", &body);
    let loads = loads(deployment.service.address(), &(good, 201), bad);
    let (mut pairs, mut refused) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let mut rates = [0.0; 2];
        for load in ORDER {
            let answers = loads[load].run().await?;
            rates[load] += answers.accepted_per_second;
            refused += answers.refused;
        }
        let [clean, poisoned] = rates;
        pairs.push((poisoned, clean));
    }
    ensure!(refused > 0, "no request was refused");
    let Ratio { mean, lower, upper } = Ratio::of_pairs(&pairs).context("too few rounds")?;
    Ok(vec![Measurement {
        measured: mean,
        threshold: Threshold::AtLeast(RATIO),
        unit: Unit::Times,
        description: format!(
            "starts/s with every {INTERVAL}th request bad, divided by the rate without; 95 % interval \
             {lower:.3} to {upper:.3}; {refused} refused, each with its own error"
        ),
    }])
}

/// The load without and the load with bad requests.
fn loads(address: &str, good: &Prepared, bad: [Prepared; 4]) -> [VariedLoad; 2] {
    let [clean, good] = [good.clone(), good.clone()];
    let poisoned = move |number: usize| {
        if number.is_multiple_of(INTERVAL) {
            bad[number / INTERVAL % bad.len()].clone()
        } else {
            good.clone()
        }
    };
    [
        VariedLoad::new(address, CONNECTIONS, move |_| clean.clone()),
        VariedLoad::new(address, CONNECTIONS, poisoned),
    ]
}

fn template() -> serde_json::Value {
    json!({ "name": "Plain", "room_creation": "on_join" })
}

/// One request of each kind, with the status of its error.
async fn bad_requests(
    deployment: &Deployment,
    env: &BenchEnv,
    template: &str,
) -> Result<[Prepared; 4]> {
    let token = deployment.service.token_of(ORGANIZATION);
    deployment.api.start(template, "ann", Some(KEY)).await?;
    let other_body = json!({ "session_template_id": template, "user_id": "ben" }).to_string();
    let unknown = json!({ "session_template_id": Uuid::from_u128(1) }).to_string();
    let nul = json!({ "session_template_id": template, "metadata": { "text": "\0" } }).to_string();
    Ok([
        (start_request(&token, "", &unknown), 404),
        (start_request(&token, "", &nul), 400),
        (start_request(&token, &format!("Idempotency-Key: {KEY}\r\n"), &other_body), 422),
        (over_quota(deployment, env).await?, 429),
    ])
}

/// A start of an organization that may have no open session.
async fn over_quota(deployment: &Deployment, env: &BenchEnv) -> Result<Vec<u8>> {
    let api = Api::of_organization(&deployment.service, &env.client, FULL_ORGANIZATION);
    let body = json!({ "session_template_id": api.create_template(&template()).await? });
    let limit = format!(
        "update organizations set max_active_sessions = 0 where id = '{FULL_ORGANIZATION}'"
    );
    let updated = deployment.sql.execute(&limit, &[]).await?;
    ensure!(updated == 1, "the organization to limit has no row");
    let token = deployment.service.token_of(FULL_ORGANIZATION);
    Ok(start_request(&token, "", &body.to_string()))
}
