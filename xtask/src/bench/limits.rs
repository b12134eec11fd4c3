//! What a start costs where limits are checked and sessions are handed out again: ways of starting,
//! in turns of one run.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::figure::{Finding, Reach, Unit};
use super::stage::{Ground, Stage};
use super::wire::Connection;
use crate::api::{Api, ORGANIZATION};

const CONNECTIONS: usize = 64;

/// How often each way has its turn. Machines are noisy: it is medians that are held against one
/// another.
const TURNS: usize = 12;

/// How long a turn is.
const TURN: Duration = Duration::from_secs(1);

/// By how much a start may be slower than before there were limits.
const AS_BEFORE: f64 = 0.95;

/// A session handed out again is one statement, as one that is written is.
const AGAIN: f64 = 0.8;

/// Starts of an organization with a limit are written one after the other, each with a lock before.
const LIMITED: f64 = 100.0;

/// The keeper looks at what is started here after the figure is measured.
const SELDOM_KEPT: [(&str, &str); 1] = [("GREENROOM_RECONCILE_SECONDS", "3600")];

const LIMITED_ORGANIZATION: Uuid = Uuid::from_u128(0x0190_d3a0_0000_7000_8000_0000_0000_11ed);

/// A way of starting, and how many starts a second each of its turns came to.
struct Way {
    address: String,
    /// One for each connection.
    requests: Vec<Vec<u8>>,
    rates: Vec<f64>,
}

pub async fn measure(ground: &Ground) -> Result<Vec<Finding>> {
    let stage = Stage::set(ground, "limits", &SELDOM_KEPT).await?;
    let before = match &ground.against {
        Some(program) => {
            let ground = Ground { program: program.clone(), ..ground.clone() };
            Some(Stage::set(&ground, "before", &SELDOM_KEPT).await?)
        }
        None => None,
    };
    let mut ways =
        vec![plain(&stage).await?, again(&stage).await?, limited(&stage, &ground.client).await?];
    if let Some(before) = &before {
        ways.push(plain(before).await?);
    }
    for turn in 0..TURNS {
        // Back and forth, so that none is always after the same.
        let ways: Box<dyn Iterator<Item = &mut Way>> =
            if turn % 2 == 0 { Box::new(ways.iter_mut()) } else { Box::new(ways.iter_mut().rev()) };
        for way in ways {
            way.take_turn().await?;
        }
    }
    let rates: Vec<f64> = ways.iter_mut().map(Way::median).collect();
    let [plain, again, limited] = rates[..3] else { unreachable!("there are three at least") };
    let mut findings = Vec::new();
    if let Some(before) = rates.get(3) {
        findings.push(Finding {
            measured: plain / before,
            reach: Reach::AtLeast(AS_BEFORE),
            unit: Unit::Times,
            says: format!("{plain:.0} plain starts a second against {before:.0} by the other"),
        });
    }
    findings.push(Finding {
        measured: again / plain,
        reach: Reach::AtLeast(AGAIN),
        unit: Unit::Times,
        says: format!("{again:.0} sessions a second handed out again against {plain:.0} started"),
    });
    findings.push(Finding {
        measured: limited,
        reach: Reach::AtLeast(LIMITED),
        unit: Unit::PerSecond,
        says: "starts of one organization with a limit".to_owned(),
    });
    Ok(findings)
}

/// By a backend, of an organization without a limit.
async fn plain(stage: &Stage) -> Result<Way> {
    let template = json!({ "name": "Plain", "room_creation": "on_join" });
    let template = stage.api.template(&template).await?;
    Ok(Way::starting(stage, &template, |_| stage.service.token_of(ORGANIZATION)))
}

/// By users, each of whom gets the same session each time.
async fn again(stage: &Stage) -> Result<Way> {
    let template = json!({ "name": "Again", "room_creation": "on_join" });
    let template = stage.api.template(&template).await?;
    let user = |number| stage.service.token_of_user(ORGANIZATION, &format!("user-{number}"));
    Ok(Way::starting(stage, &template, user))
}

/// By a backend, of an organization with a limit that it does not reach.
async fn limited(stage: &Stage, client: &reqwest::Client) -> Result<Way> {
    let api = Api::of_organization(&stage.service, client, LIMITED_ORGANIZATION);
    let template = json!({ "name": "Limited", "room_creation": "on_join" });
    let template = api.template(&template).await?;
    let limit = format!(
        "update organizations set max_active_sessions = 1000000000 where id = '{LIMITED_ORGANIZATION}'"
    );
    let set = stage.sql.execute(&limit, &[]).await?;
    ensure!(set == 1, "there is no organization to limit");
    Ok(Way::starting(stage, &template, |_| stage.service.token_of(LIMITED_ORGANIZATION)))
}

impl Way {
    fn starting(stage: &Stage, template: &str, token: impl Fn(usize) -> String) -> Self {
        let body = json!({ "session_template_id": template }).to_string();
        let request = |connection| {
            format!(
                "POST /api/v1/sessions/start HTTP/1.1\r\nHost: greenroom\r\n\
                 Content-Type: application/json\r\nAuthorization: Bearer {}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                token(connection),
                body.len()
            )
            .into_bytes()
        };
        let address = stage.service.address().to_owned();
        Self { address, requests: (0..CONNECTIONS).map(request).collect(), rates: Vec::new() }
    }

    async fn take_turn(&mut self) -> Result<()> {
        let mut connections = Vec::new();
        for request in &self.requests {
            connections.push((Connection::open(&self.address).await?, request.clone()));
        }
        let begun = Instant::now();
        let mut starters = JoinSet::new();
        for (connection, request) in connections {
            starters.spawn(start_until(connection, request, begun + TURN));
        }
        let started: Result<Vec<u32>> = starters.join_all().await.into_iter().collect();
        let started: u32 = started?.iter().sum();
        self.rates.push(f64::from(started) / begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn median(&mut self) -> f64 {
        self.rates.sort_by(f64::total_cmp);
        self.rates[self.rates.len() / 2]
    }
}

async fn start_until(mut connection: Connection, request: Vec<u8>, end: Instant) -> Result<u32> {
    let mut started = 0;
    while Instant::now() < end {
        let status = connection.ask(&request).await?;
        ensure!(status == 201, "a start was answered {status}");
        started += 1;
    }
    Ok(started)
}
