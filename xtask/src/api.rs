//! The public API of one replica, called as a backend.

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::Service;

/// The default organization. It can be fixed, because each deployment has its own database.
pub const ORGANIZATION: Uuid = Uuid::from_u128(0x0190_d3a0_0000_7000_8000_0000_0000_c405);

const SESSIONS: &str = "/api/v1/sessions";

/// A client with the token of a backend of one organization.
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

    /// Creates a template and returns its id.
    pub async fn create_template(&self, template: &Value) -> Result<String> {
        let created = self.post("/api/v1/session-templates", template, None).await?;
        text(&created, "id")
    }

    /// Starts a session and returns the response.
    pub async fn start(&self, template: &str, user: &str, key: Option<&str>) -> Result<Value> {
        let request = json!({ "session_template_id": template, "user_id": user });
        self.post(&format!("{SESSIONS}/start"), &request, key).await
    }

    pub async fn session(&self, id: &str) -> Result<Value> {
        self.call(Method::GET, &format!("{SESSIONS}/{id}"), None, None, StatusCode::OK).await
    }

    /// Returns the session as soon as its agent is ready or can no longer become ready, and after
    /// 30 seconds at the latest.
    pub async fn wait_for_agent(&self, id: &str) -> Result<Value> {
        let route = format!("{SESSIONS}/{id}?wait_for=agent_ready&timeout_seconds=30");
        self.call(Method::GET, &route, None, None, StatusCode::OK).await
    }

    /// Returns the newest 200 pending sessions of a template.
    pub async fn pending_sessions(&self, template: &str) -> Result<Value> {
        let route = format!("{SESSIONS}?status=pending&session_template_id={template}&limit=200");
        self.call(Method::GET, &route, None, None, StatusCode::OK).await
    }

    /// Returns the first page of the organization's sessions.
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
        let (status, body) = (response.status(), response.text().await?);
        ensure!(
            status == expected,
            "{method} {route} returned {status} instead of {expected}: {body}"
        );
        serde_json::from_str(&body).with_context(|| format!("{method} {route} returned {body}"))
    }
}

/// Returns a text field of a response.
pub fn text(response: &Value, field: &str) -> Result<String> {
    let text = response[field].as_str().map(str::to_owned);
    text.with_context(|| format!("the response has no text field {field}: {response}"))
}
