//! The demo: one session from the first POST to the agent's greeting, with a backend and a user.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use chrono::{DateTime, FixedOffset};
use greenroom_testkit::user::User;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::AGENT;
use crate::service::Service;
use crate::steps::Steps;

/// The organization that the README and the documentation use in their examples, so that a token
/// from an example can read the demo's template and session.
const ORGANIZATION: Uuid = Uuid::from_u128(0x0193_b8a0_0000_7000_8000_0000_0000_0001);

const TEMPLATE: &str = "Greeter demo";

const TEMPLATES: &str = "/api/v1/session-templates";
const SESSIONS: &str = "/api/v1/sessions";
const START: &str = "/api/v1/sessions/start";

const USER: &str = "ann";

/// The demo's session.
pub struct Session {
    id: String,
    template_id: String,
}

impl Session {
    /// Returns a shell command that starts another session.
    pub fn curl(&self, service: &Service) -> String {
        format!(
            "  curl -X POST {} \\\n    -H 'Authorization: Bearer {}' \\\n    \
             -H 'Content-Type: application/json' \\\n    -d '{}'",
            service.url(START),
            service.token_of(ORGANIZATION),
            json!({ "session_template_id": self.template_id, "user_id": USER }),
        )
    }

    /// Ends the session, which closes its room.
    pub async fn end(&self, service: &Service) {
        // Ignore an error: the service may have exited.
        let _ = Api::of(service).end(&self.id).await;
    }
}

/// Starts a session, verifies it, and prints each step with the time since the start. Ends the
/// session if the verification fails or `shutdown` completes.
pub async fn run(
    service: &Service,
    with_agent: bool,
    shutdown: impl Future<Output = ()>,
) -> Result<Session> {
    print_line!("\nDemo session\n");
    let api = Api::of(service);
    let template_id = api.find_or_create_template().await?;
    let started_at = Instant::now();
    let response = api.start(&template_id).await?;
    let session = Session { id: text(&response, "session_id")?, template_id };
    print_step(started_at, &format!("POST {START} returned 201: session {}", session.id));
    let verification = async {
        if with_agent {
            verify_call(&api, &response, &session, started_at).await?;
        }
        print_timeline(&api.timeline(&session.id).await?)
    };
    let verified = tokio::select! {
        verified = verification => verified,
        () = shutdown => Err(anyhow!("stopped before the session was verified")),
    };
    if verified.is_err() {
        session.end(service).await;
    }
    verified.map(|()| session)
}

/// Waits for the agent, joins as the user, and checks the greeting.
async fn verify_call(
    api: &Api<'_>,
    response: &Value,
    session: &Session,
    started_at: Instant,
) -> Result<()> {
    let ready = api.wait_for("agent_ready", &session.id);
    let ready = Steps::new().watch("Agent", "joining the room", ready).await?;
    ensure!(ready["agent_status"] == "ready", "the agent did not join the room: {ready}");
    print_step(started_at, "GET …?wait_for=agent_ready returned: the agent is in the room");
    let user = User::new(&text(response, "livekit_url")?, &text(response, "access_token")?);
    let joining = user.publishing_microphone().join_and_report();
    let report = Steps::new().watch("User", "waiting for the greeting", joining).await?;
    if let Some(error) = report.error {
        bail!("the user received no greeting: {error}");
    }
    let (connected, greeted) =
        (report.connected_ms.unwrap_or_default(), report.greeting_ms.unwrap_or_default());
    let (user, greeting) =
        (report.identity.unwrap_or_default(), report.greeting.unwrap_or_default());
    print_step(
        started_at,
        &format!(
            "{user} joined with the token: connected after {connected} ms, greeted after \
             {greeted} ms"
        ),
    );
    print_step(started_at, &format!("the agent said: {greeting}"));
    let id = &session.id;
    ensure!(greeting.contains(id), "the greeting does not contain the session id {id}");
    let active = api.wait_for("active", id).await?;
    ensure!(
        active["status"] == "active",
        "the user joined, but the session is not active: {active}"
    );
    Ok(())
}

/// Prints the timeline of the session with the time since its creation.
fn print_timeline(entries: &[Value]) -> Result<()> {
    print_line!("\nTimeline of the session\n");
    let at = |entry: &Value| -> Result<DateTime<FixedOffset>> {
        Ok(DateTime::parse_from_rfc3339(&text(entry, "at")?)?)
    };
    let created = at(entries.first().context("the timeline is empty")?)?;
    for entry in entries {
        let after = (at(entry)? - created).num_milliseconds();
        print_line!("  {after:>6} ms  {}", text(entry, "event")?);
    }
    Ok(())
}

/// A client of the public API with the token of a backend.
struct Api<'a> {
    service: &'a Service,
    client: Client,
    token: String,
}

impl<'a> Api<'a> {
    fn of(service: &'a Service) -> Self {
        Self { service, client: Client::new(), token: service.token_of(ORGANIZATION) }
    }

    /// Returns the id of the demo's template, and creates the template if it does not exist.
    async fn find_or_create_template(&self) -> Result<String> {
        let newest = format!("{TEMPLATES}?limit=200");
        let all = self.call(Method::GET, &newest, None, StatusCode::OK).await?;
        let found =
            all.as_array().into_iter().flatten().find(|template| template["name"] == TEMPLATE);
        if let Some(template) = found {
            return text(template, "id");
        }
        let template =
            json!({ "name": TEMPLATE, "agent_name": AGENT, "modality_profile": "audio+text" });
        text(&self.call(Method::POST, TEMPLATES, Some(template), StatusCode::CREATED).await?, "id")
    }

    /// Returns the session as soon as it meets the condition or can no longer meet it, and after 30
    /// seconds at the latest.
    async fn wait_for(&self, condition: &str, session: &str) -> Result<Value> {
        let route = format!("{SESSIONS}/{session}?wait_for={condition}&timeout_seconds=30");
        self.call(Method::GET, &route, None, StatusCode::OK).await
    }

    async fn timeline(&self, session: &str) -> Result<Vec<Value>> {
        let route = format!("{SESSIONS}/{session}/timeline");
        let all = self.call(Method::GET, &route, None, StatusCode::OK).await?;
        all.as_array().cloned().context("the timeline is not a list")
    }

    async fn end(&self, session: &str) -> Result<Value> {
        let route = format!("{SESSIONS}/{session}/end");
        self.call(Method::POST, &route, None, StatusCode::OK).await
    }

    async fn start(&self, template: &str) -> Result<Value> {
        let request = json!({ "session_template_id": template, "user_id": USER });
        self.call(Method::POST, START, Some(request), StatusCode::CREATED).await
    }

    async fn call(
        &self,
        method: Method,
        route: &str,
        body: Option<Value>,
        expected: StatusCode,
    ) -> Result<Value> {
        let mut request =
            self.client.request(method.clone(), self.service.url(route)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
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

fn text(response: &Value, field: &str) -> Result<String> {
    response[field]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("the response has no text field {field}: {response}"))
}

fn print_step(started_at: Instant, step: &str) {
    print_line!("  {:>6} ms  {step}", started_at.elapsed().as_millis());
}
