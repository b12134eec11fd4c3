//! The rate of the first and of the deepest page of a list of 1,000,000 sessions.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::raw_http::Connection;
use super::statistics::median;
use crate::api::ORGANIZATION;

const SESSIONS: i32 = 1_000_000;

const ROUNDS: usize = 6;

const ROUND_DURATION: Duration = Duration::from_secs(1);

/// The deepest page must reach this share of the first page's rate.
const RATIO: f64 = 0.83;

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let deployment = Deployment::start(env, "pages", &[]).await?;
    let template = deployment.api.create_template(&json!({ "name": "Listed" })).await?;
    fill(&deployment, &template).await?;
    let first = "/api/v1/sessions?limit=100";
    let deepest = deepest_page(&deployment, env, first).await?;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for page in order {
            rates[page].push(rate(&deployment, [first, &deepest][page]).await?);
        }
    }
    let [first, deepest] = rates.map(|rates| median(&rates));
    Ok(vec![Measurement {
        measured: deepest / first,
        threshold: Threshold::AtLeast(RATIO),
        unit: Unit::Times,
        description: format!("deepest page {deepest:.0} /s, first page {first:.0} /s"),
    }])
}

/// Inserts ended sessions a millisecond apart. Without the foreign key's trigger, which would look
/// the template up a million times.
async fn fill(deployment: &Deployment, template: &str) -> Result<()> {
    let insert = format!(
        "set session_replication_role = replica;
         insert into sessions (organization_id, id, session_template_id, session_template_version, room_name,
           participant_identity, room_creation, status, agent_status, end_reason, token_expiry, created_at, ended_at,
           join_by)
         select '{ORGANIZATION}', (lpad(to_hex(1700000000000 + n), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
           '{template}', 1, 'room_' || n, 'guest', 'on_join', 'ended', 'none', 'requested', now(), now(), now(), now()
         from generate_series(1, {SESSIONS}) n;
         reset session_replication_role;
         analyze sessions"
    );
    deployment.sql.batch_execute(&insert).await?;
    Ok(())
}

/// Follows the links of the list to its end and returns the path of the last page.
async fn deepest_page(deployment: &Deployment, env: &BenchEnv, first: &str) -> Result<String> {
    let token = deployment.service.token_of(ORGANIZATION);
    let (mut path, mut pages) = (first.to_owned(), 0);
    loop {
        let request = env.client.get(deployment.service.url(&path)).bearer_auth(&token);
        let response = request.send().await?.error_for_status()?;
        pages += 1;
        let Some(link) = response.headers().get("link") else { break };
        let next = link.to_str()?.split(['<', '>']).nth(1);
        next.context("the Link header names no page")?.clone_into(&mut path);
    }
    ensure!(pages == SESSIONS / 100, "the list ended after {pages} pages");
    Ok(path)
}

async fn rate(deployment: &Deployment, path: &str) -> Result<f64> {
    let token = deployment.service.token_of(ORGANIZATION);
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: greenroom\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut connection = Connection::open(deployment.service.address()).await?;
    let (begun, mut pages) = (Instant::now(), 0_u32);
    while begun.elapsed() < ROUND_DURATION {
        let status = connection.send(request.as_bytes()).await?;
        ensure!(status == 200, "a page returned {status}");
        pages += 1;
    }
    Ok(f64::from(pages) / begun.elapsed().as_secs_f64())
}
