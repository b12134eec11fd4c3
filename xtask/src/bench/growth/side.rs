//! One of the compared databases with its service, and the loads on it.

use anyhow::{Context, Result, ensure};
use greenroom_testkit::pg::Database;
use serde_json::json;

use crate::api::ORGANIZATION;
use crate::bench::deployment::{BenchEnv, Deployment};
use crate::bench::varied_load::{VariedLoad, get_request, start_request};

const STARTERS: usize = 64;

const READERS: usize = 16;

/// Number of sessions that are read in turn.
const READ_SESSIONS: usize = 64;

/// Number of users of the started sessions. Their entries in the index of users are far apart.
const USERS: usize = 1 << 20;

pub struct Side {
    pub deployment: Deployment,
    client: reqwest::Client,
    template: String,
}

impl Side {
    pub async fn start(env: &BenchEnv, name: &str, database: Database) -> Result<Self> {
        // The keeper observes the started sessions only after the measurement. Retention searches, and
        // finds no session that is old enough.
        let settings =
            [("GREENROOM_RECONCILE_SECONDS", "3600"), ("GREENROOM_RETENTION_DAYS", "400")];
        let deployment = Deployment::start_on(env, name, &settings, database).await?;
        let template = json!({ "name": "Started", "room_creation": "on_join" });
        let template = deployment.api.create_template(&template).await?;
        Ok(Self { deployment, client: env.client.clone(), template })
    }

    /// The loads with their names: starts, and reads of single sessions and of pages. `rows` is the number
    /// of stored sessions.
    pub async fn loads(&self, rows: u64) -> Result<[(&'static str, VariedLoad); 4]> {
        Ok([
            ("reads of one session", self.reads(&self.session_paths(rows).await?)),
            ("first page", self.reads(&["/api/v1/sessions?limit=50".to_owned()])),
            ("page in the middle", self.reads(&[self.middle_page().await?])),
            ("starts", self.starts()),
        ])
    }

    fn starts(&self) -> VariedLoad {
        let token = self.deployment.service.token_of(ORGANIZATION);
        let template = self.template.clone();
        VariedLoad::new(self.deployment.service.address(), STARTERS, move |number| {
            // Successive users are far apart, as the golden ratio spreads them.
            let user = number.wrapping_mul(648_055) % USERS;
            let body =
                format!(r#"{{"session_template_id":"{template}","user_id":"user-{user:05x}"}}"#);
            (start_request(&token, "", &body), 201)
        })
    }

    fn reads(&self, paths: &[String]) -> VariedLoad {
        let token = self.deployment.service.token_of(ORGANIZATION);
        let requests: Vec<_> = paths.iter().map(|path| get_request(&token, path)).collect();
        VariedLoad::new(self.deployment.service.address(), READERS, move |number| {
            (requests[number % requests.len()].clone(), 200)
        })
    }

    /// The paths of random stored sessions.
    async fn session_paths(&self, rows: u64) -> Result<Vec<String>> {
        let query = format!(
            "select id::text from sessions tablesample bernoulli (least(100, 100000.0 / {rows}))
             where organization_id = '{ORGANIZATION}' order by random() limit {READ_SESSIONS}"
        );
        let ids = self.deployment.sql.query(&query, &[]).await?;
        ensure!(ids.len() == READ_SESSIONS, "the sample contains too few sessions");
        ids.iter()
            .map(|id| Ok(format!("/api/v1/sessions/{}", id.try_get::<_, String>(0)?)))
            .collect()
    }

    /// The path of the second page of the sessions that were created before the middle of the year.
    async fn middle_page(&self) -> Result<String> {
        const MIDDLE: &str = r#"
            select to_char((now() - interval '183 days') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;
        let at: String = self.deployment.sql.query_one(MIDDLE, &[]).await?.try_get(0)?;
        let service = &self.deployment.service;
        let first = service.url(&format!("/api/v1/sessions?limit=50&created_before={at}"));
        let request = self.client.get(first).bearer_auth(service.token_of(ORGANIZATION));
        let response = request.send().await?.error_for_status()?;
        let link = response.headers().get("link").context("the list has only one page")?;
        let next = link.to_str()?.split(['<', '>']).nth(1);
        Ok(next.context("the Link header names no page")?.to_owned())
    }
}
