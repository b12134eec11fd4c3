//! A session from the first POST to the agent's greeting, as a backend and its user would have it.

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

/// The organization of everything `dev` makes: the one of the examples in README and docs, whose
/// tokens so find the demo's template and session.
const ORGANIZATION: Uuid = Uuid::from_u128(0x0193_b8a0_0000_7000_8000_0000_0000_0001);

const TEMPLATE: &str = "Greeter demo";

const TEMPLATES: &str = "/api/v1/session-templates";
const SESSIONS: &str = "/api/v1/sessions";
const START: &str = "/api/v1/sessions/start";

const USER: &str = "ann";

/// The session that was started.
pub struct Session {
    id: String,
    template: String,
}

impl Session {
    /// A start that can be pasted into a shell.
    pub fn curl(&self, service: &Service) -> String {
        format!(
            "  curl -X POST {} \\\n    -H 'Authorization: Bearer {}' \\\n    \
             -H 'Content-Type: application/json' \\\n    -d '{}'",
            service.url(START),
            service.token_of(ORGANIZATION),
            json!({ "session_template_id": self.template, "user_id": USER }),
        )
    }

    /// Ends the demo's session, and with it closes its room.
    pub async fn end(&self, service: &Service) {
        // The service may be what has failed.
        let _ = Api::of(service).end(&self.id).await;
    }
}

/// Starts a session and sees that it really happens, telling each step with the time since the
/// start. It is ended when that comes to nothing, or is broken off.
pub async fn run(
    service: &Service,
    with_agent: bool,
    asked_to_stop: impl Future<Output = ()>,
) -> Result<Session> {
    println!("\nA session, through the public API\n");
    let api = Api::of(service);
    let template = api.template().await?;
    let begun = Instant::now();
    let started = api.start(&template).await?;
    let session = Session { id: text(&started, "session_id")?, template };
    tell(begun, &format!("POST {START} answered 201: session {}", session.id));
    let happened = async {
        if with_agent {
            meet(&api, &started, &session, begun).await?;
        }
        timeline(&api.timeline(&session.id).await?)
    };
    let happened = tokio::select! {
        happened = happened => happened,
        () = asked_to_stop => Err(anyhow!("stopped before the session was verified")),
    };
    if happened.is_err() {
        session.end(service).await;
    }
    happened.map(|()| session)
}

/// Sees the agent come, joins as the user, and hears the greeting.
async fn meet(api: &Api<'_>, started: &Value, session: &Session, begun: Instant) -> Result<()> {
    let ready = api.wait_for("agent_ready", &session.id);
    let ready = Steps::new().watch("The agent", "on its way", ready).await?;
    ensure!(ready["agent_status"] == "ready", "the agent did not come: {ready}");
    tell(begun, "GET …?wait_for=agent_ready answered: the agent is in the room");
    let user = User::new(&text(started, "livekit_url")?, &text(started, "access_token")?);
    let joining = user.publishing_microphone().join();
    let report = Steps::new().watch("The user", "joining, to be greeted", joining).await?;
    if let Some(error) = report.error {
        bail!("the user was to be greeted, and saw {error}");
    }
    let (connected, greeted) =
        (report.connected_ms.unwrap_or_default(), report.greeting_ms.unwrap_or_default());
    let (user, greeting) =
        (report.identity.unwrap_or_default(), report.greeting.unwrap_or_default());
    tell(
        begun,
        &format!(
            "{user} joined with the token and a microphone: connected after {connected} ms, \
             greeted after {greeted} ms"
        ),
    );
    tell(begun, &format!("the agent said: {greeting}"));
    let id = &session.id;
    ensure!(greeting.contains(id), "the agent was told of another session than {id}");
    let active = api.wait_for("active", id).await?;
    ensure!(
        active["status"] == "active",
        "the user joined, and the session is not active: {active}"
    );
    Ok(())
}

/// Shows what Greenroom knows of the session, with the time since its creation.
fn timeline(entries: &[Value]) -> Result<()> {
    println!("\nIts timeline\n");
    let at = |entry: &Value| -> Result<DateTime<FixedOffset>> {
        Ok(DateTime::parse_from_rfc3339(&text(entry, "at")?)?)
    };
    let created = at(entries.first().context("the timeline is empty")?)?;
    for entry in entries {
        let after = (at(entry)? - created).num_milliseconds();
        println!("  {after:>6} ms  {}", text(entry, "event")?);
    }
    Ok(())
}

/// The public API, as a backend sees it.
struct Api<'a> {
    service: &'a Service,
    client: Client,
    token: String,
}

impl<'a> Api<'a> {
    fn of(service: &'a Service) -> Self {
        Self { service, client: Client::new(), token: service.token_of(ORGANIZATION) }
    }

    /// The id of the demo's template, which is made when there is none.
    async fn template(&self) -> Result<String> {
        let newest = format!("{TEMPLATES}?limit=200");
        let all = self.call(Method::GET, &newest, None, StatusCode::OK).await?;
        let there =
            all.as_array().into_iter().flatten().find(|template| template["name"] == TEMPLATE);
        if let Some(there) = there {
            return text(there, "id");
        }
        let wanted =
            json!({ "name": TEMPLATE, "agent_name": AGENT, "modality_profile": "audio+text" });
        text(&self.call(Method::POST, TEMPLATES, Some(wanted), StatusCode::CREATED).await?, "id")
    }

    /// The session once it is so, can no longer become so, or half a minute is over.
    async fn wait_for(&self, what: &str, session: &str) -> Result<Value> {
        let route = format!("{SESSIONS}/{session}?wait_for={what}&timeout_seconds=30");
        self.call(Method::GET, &route, None, StatusCode::OK).await
    }

    async fn timeline(&self, session: &str) -> Result<Vec<Value>> {
        let route = format!("{SESSIONS}/{session}/timeline");
        let all = self.call(Method::GET, &route, None, StatusCode::OK).await?;
        all.as_array().cloned().context("the timeline is no list")
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
        let (status, answer) = (response.status(), response.text().await?);
        ensure!(status == expected, "{method} {route} answered {status}: {answer}");
        serde_json::from_str(&answer).with_context(|| format!("{method} {route} answered {answer}"))
    }
}

fn text(answer: &Value, field: &str) -> Result<String> {
    answer[field]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("the answer has no {field}: {answer}"))
}

fn tell(begun: Instant, what: &str) {
    println!("  {:>6} ms  {what}", begun.elapsed().as_millis());
}
