//! The public API of one replica, as a backend sees it.

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::Service;

/// The organization of everything that is made by it: whoever uses it has a database of its own.
pub const ORGANIZATION: Uuid = Uuid::from_u128(0x0190_d3a0_0000_7000_8000_0000_0000_c405);

const SESSIONS: &str = "/api/v1/sessions";

/// Where calls go, and as whom.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    pub fn of(service: &Service, client: &Client) -> Self {
        Self::of_organization(service, client, ORGANIZATION)
    }

    pub fn of_organization(service: &Service, client: &Client, organization: Uuid) -> Self {
        let (base, token) = (service.url(""), service.token_of(organization));
        Self { client: client.clone(), base, token }
    }

    /// Makes a template and says its id.
    pub async fn template(&self, wanted: &Value) -> Result<String> {
        let made = self.post("/api/v1/session-templates", wanted, None).await?;
        text(&made, "id")
    }

    /// Starts a session, and answers what the reply says.
    pub async fn start(&self, template: &str, user: &str, key: Option<&str>) -> Result<Value> {
        let wanted = json!({ "session_template_id": template, "user_id": user });
        self.post(&format!("{SESSIONS}/start"), &wanted, key).await
    }

    pub async fn session(&self, id: &str) -> Result<Value> {
        self.call(Method::GET, &format!("{SESSIONS}/{id}"), None, None, StatusCode::OK).await
    }

    /// The session, once its agent is there, no longer to be waited for, or half a minute is over.
    pub async fn agent_ready(&self, id: &str) -> Result<Value> {
        let route = format!("{SESSIONS}/{id}?wait_for=agent_ready&timeout_seconds=30");
        self.call(Method::GET, &route, None, None, StatusCode::OK).await
    }

    /// The newest sessions of a template that nobody has joined yet.
    pub async fn pending(&self, template: &str) -> Result<Value> {
        let route = format!("{SESSIONS}?status=pending&session_template_id={template}&limit=200");
        self.call(Method::GET, &route, None, None, StatusCode::OK).await
    }

    /// All of its sessions.
    pub async fn sessions(&self) -> Result<Value> {
        self.call(Method::GET, SESSIONS, None, None, StatusCode::OK).await
    }

    pub async fn timeline(&self, id: &str) -> Result<Value> {
        let route = format!("{SESSIONS}/{id}/timeline");
        self.call(Method::GET, &route, None, None, StatusCode::OK).await
    }

    pub async fn end(&self, id: &str) -> Result<Value> {
        let route = format!("{SESSIONS}/{id}/end");
        self.call(Method::POST, &route, None, None, StatusCode::OK).await
    }

    async fn post(&self, route: &str, body: &Value, key: Option<&str>) -> Result<Value> {
        self.call(Method::POST, route, Some(body), key, StatusCode::CREATED).await
    }

    async fn call(
        &self,
        method: Method,
        route: &str,
        body: Option<&Value>,
        key: Option<&str>,
        expected: StatusCode,
    ) -> Result<Value> {
        let url = format!("{}{route}", self.base);
        let mut request = self.client.request(method.clone(), url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let response = request.send().await.with_context(|| format!("{method} {route}"))?;
        let (status, answer) = (response.status(), response.text().await?);
        ensure!(status == expected, "{method} {route} answered {status}: {answer}");
        serde_json::from_str(&answer).with_context(|| format!("{method} {route} answered {answer}"))
    }
}

/// A field of an answer that has to be there.
pub fn text(answer: &Value, field: &str) -> Result<String> {
    let text = answer[field].as_str().map(str::to_owned);
    text.with_context(|| format!("the answer has no {field}: {answer}"))
}
