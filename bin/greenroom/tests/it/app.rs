//! A running `greenroom` process, and requests to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::process::{GuardedCommand, Process};
use greenroom_testkit::user::{Report, User};
use greenroom_testkit::{caller, paths, random_hex, wait_until};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

pub const AUTH_SECRET: &str = "the callers' secret of thirty-two bytes";

/// A running `greenroom serve` with its own database and organization.
pub struct App {
    // Declared before the database, so that the process stops before the database is dropped.
    pub process: Process,
    pub pid: String,
    pub address: String,
    pub organization: Uuid,
    pub client: Client,
    database: Database,
}

/// A complete response.
pub struct Answer {
    /// The method and the path of the request.
    request: (String, String),
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The invalid fields of a 400.
    pub fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().filter_map(|error| error["field"].as_str()).collect()
    }

    /// Asserts that the response is the problem with this status and code, and that the OpenAPI
    /// document lists the code for the route.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["type"], format!("urn:greenroom:problem:{code}"));
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["request_id"], self.header("x-request-id"));
        assert_eq!(self.body["retryable"], matches!(status, 429 | 503 | 504));
        assert_eq!(self.headers.contains_key("retry-after"), matches!(status, 429 | 503 | 504));
        assert_eq!(self.headers.contains_key("ratelimit-limit"), status == 429);
        assert!(
            self.body["detail"].as_str().is_some_and(|detail| detail.ends_with(['.', '>'])),
            "{}",
            self.body
        );
        assert!(!self.body.to_string().contains("server_url"));
        if let Some(operation) = documented(&self.request) {
            let codes = operation["responses"][status.to_string()]["description"].as_str();
            let is_listed = codes.is_some_and(|codes| codes.split(", ").any(|it| it == code));
            assert!(is_listed, "the document does not list {code} for {:?}", self.request);
        }
    }
}

/// Returns the environment of a process with this database and this LiveKit.
pub fn environment(database: &str, livekit: &Server) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("GREENROOM_LISTEN", "127.0.0.1:0".to_owned()),
        ("GREENROOM_LOG", "greenroom=debug,info".to_owned()),
        ("DATABASE_URL", database.to_owned()),
        ("LIVEKIT_URL", livekit.url().to_owned()),
        ("LIVEKIT_API_KEY", livekit.api_key().to_owned()),
        ("LIVEKIT_API_SECRET", livekit.api_secret().to_owned()),
        ("AUTH_JWT_SECRET", AUTH_SECRET.to_owned()),
    ])
}

impl App {
    /// Starts the program with the LiveKit server that tests share.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts the program with additional or changed environment variables.
    pub async fn with(changed: &[(&'static str, &str)]) -> Self {
        let database = Database::fresh().await.unwrap();
        let livekit = Server::shared().await.unwrap();
        Self::on(database, livekit, changed).await
    }

    /// Starts the program with this database and this LiveKit server.
    pub async fn on(
        database: Database,
        livekit: &Server,
        changed: &[(&'static str, &str)],
    ) -> Self {
        let mut environment = environment(database.url(), livekit);
        environment.extend(changed.iter().map(|(name, text)| (*name, (*text).to_owned())));
        let home = paths::create_temp_dir("greenroom", None).unwrap();
        let log = home.join("greenroom.log");
        let mut program = GuardedCommand::new("greenroom", env!("CARGO_BIN_EXE_greenroom"), log)
            .args(["serve"])
            .remove_on_stop(home);
        // Variables that the developer has exported must not affect the process.
        let prefixes = ["GREENROOM_", "DATABASE_", "LIVEKIT_", "AUTH_"];
        let exported = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in exported.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
            program = program.env_remove(name);
        }
        for (name, text) in &environment {
            program = program.env(name, text);
        }
        let mut process = program.start().unwrap();
        let listening = wait_until("greenroom listens", Duration::from_secs(20), async || {
            process.ensure_running()?;
            let output = process.output();
            let line = output.lines().find(|line| line.contains("listening"));
            // The text log has `address=…`, the JSON log has `"address":"…"`.
            let field = |name| {
                let value = line?.split(name).nth(1)?.trim_start_matches(['"', '=', ':']);
                value.split([' ', '"', ',']).next().map(str::to_owned)
            };
            Ok(field("address").zip(field("pid")))
        });
        let (address, pid) = listening.await.unwrap();
        let address = format!("http://{address}");
        // reqwest needs a cryptography provider even for plain HTTP. Another test may have
        // installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Every request except a long `wait_for` finishes within 10 seconds. The program closes
        // idle connections after 5 seconds, so the client drops them earlier.
        let client = Client::builder()
            .timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(3))
            .build()
            .unwrap();
        Self { process, pid, address, organization: uuid(), client, database }
    }

    /// Returns the token of a backend in this app's organization.
    pub fn token(&self) -> String {
        caller::backend_token(AUTH_SECRET, self.organization)
    }

    /// Returns the token of an end user in this app's organization.
    pub fn user_token(&self, user: &str) -> String {
        let claims = json!({"org_id": self.organization, "exp": caller::seconds_from_now(3_600), "user_id": user});
        caller::token(AUTH_SECRET, &claims)
    }

    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    /// Starts another process with the same database and the same organization.
    pub async fn replica(&self, changed: &[(&'static str, &str)]) -> Self {
        let database = ("DATABASE_URL", self.database.url());
        let replica = Self::with(&[&[database], changed].concat()).await;
        Self { organization: self.organization, ..replica }
    }

    /// Returns the password in `DATABASE_URL`.
    pub fn database_password(&self) -> String {
        let url = reqwest::Url::parse(self.database.url()).unwrap();
        url.password().unwrap_or_default().to_owned()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.address)).bearer_auth(self.token())
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// Sends a request as an end user.
    pub async fn request_as(&self, user: &str, method: Method, path: &str) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.address));
        answer(request.bearer_auth(self.user_token(user))).await
    }

    /// Returns the events in a session's timeline, in order.
    pub async fn events(&self, session: &str) -> Vec<String> {
        let timeline = self.get(&format!("{session}/timeline")).await;
        assert_eq!(timeline.status, 200, "{}", timeline.body);
        let event = |entry: &Value| entry["event"].as_str().unwrap().to_owned();
        timeline.body.as_array().unwrap().iter().map(event).collect()
    }

    /// Waits until the session has this status, and returns the session.
    pub async fn wait_for_status(&self, session: &str, status: &str, limit: Duration) -> Value {
        wait_until(&format!("the session to be {status}"), limit, async || {
            let body = self.get(session).await.body;
            anyhow::ensure!(body["status"] == status, "{body}");
            Ok(Some(body))
        })
        .await
        .unwrap()
    }

    /// Sends these bytes on a new connection and returns the first part of the response. For
    /// requests that an HTTP client would not send.
    pub async fn send_raw(&self, bytes: &str) -> String {
        let address = self.address.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.unwrap();
        // The server may close the connection before it has read everything.
        let _ = connection.write_all(bytes.as_bytes()).await;
        let mut head = vec![0; 4096];
        let read = timeout(Duration::from_secs(10), connection.read(&mut head)).await;
        let read = read.expect("the server responds or closes the connection");
        head.truncate(read.unwrap_or_default());
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Sends these bytes and then resets the connection, like a client that is killed while it
    /// waits.
    pub async fn send_and_reset(&self, bytes: &str) {
        let address = self.address.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(bytes.as_bytes()).await.unwrap();
        // Give the server time to read the request. An early response is ignored.
        let _ = timeout(Duration::from_millis(300), connection.read(&mut [0; 1024])).await;
        connection.set_zero_linger().unwrap();
    }

    /// Returns the process's anonymous memory in kilobytes. This excludes the program's code: a
    /// debug build has 36 MB of code, and the part that has run is resident.
    pub fn anonymous_kilobytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        memory.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sets the limit of open sessions of this app's organization with `greenroom organization
    /// limit`.
    pub async fn set_session_limit(&self, limit: &str) {
        let organization = self.organization.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.args(["organization", "limit", &organization, limit]).env_clear();
        let output = command.env("DATABASE_URL", self.database.url()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Creates a template with these settings and a unique name. Returns its id.
    pub async fn create_template(&self, settings: Value) -> String {
        let mut body = json!({"name": format!("template {}", uuid())});
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let created = self.post("/api/v1/session-templates", &body).await;
        assert_eq!(created.status, 201, "{}", created.body);
        created.body["id"].as_str().unwrap().to_owned()
    }

    /// Starts a session of this template.
    pub async fn start_session(&self, template: &str, body: Value) -> Answer {
        let mut request = json!({"session_template_id": template});
        request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        self.post("/api/v1/sessions/start", &request).await
    }
}

/// Returns the operation of the OpenAPI document for a method and a path.
fn documented((method, path): &(String, String)) -> Option<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap()
    });
    let is_match = |pattern: &str| {
        let (pattern, path): (Vec<_>, Vec<_>) =
            (pattern.split('/').collect(), path.split('/').collect());
        let is_same = |(pattern, part): (&&str, &&str)| {
            pattern == part || (pattern.starts_with('{') && !part.is_empty())
        };
        pattern.len() == path.len() && pattern.iter().zip(&path).all(is_same)
    };
    let paths = DOCUMENT["paths"].as_object()?;
    // An exact path takes precedence over a path with a parameter.
    let path = paths
        .get(path)
        .or_else(|| paths.iter().find(|(known, _)| is_match(known)).map(|(_, methods)| methods))?;
    path.get(method.to_lowercase())
}

/// Sends a request and returns the complete response.
pub async fn answer(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let method_and_path = (request.method().to_string(), request.url().path().to_owned());
    let response = client.execute(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { request: method_and_path, status, headers, body }
}

/// Returns the claims of a token without verification. Other tests show that LiveKit accepts
/// tokens.
pub fn claims(token: &str) -> HashMap<String, Value> {
    jsonwebtoken::dangerous::insecure_decode(token).unwrap().claims
}

/// Joins with the token of a start, and leaves after this time.
pub fn join_for(started: &Value, time: Duration) -> JoinHandle<anyhow::Result<Report>> {
    let text = |field: &str| started[field].as_str().unwrap();
    // No agent sends a greeting, so the user stays until the time-out.
    let user = User::new(text("server_url"), text("participant_token")).greeting_timeout(time);
    tokio::spawn(user.join_and_report())
}

/// Asserts that the timeline contains these events in this order. Other events may be between them.
#[track_caller]
pub fn assert_in_order(events: &[String], expected: &[&str]) {
    let mut rest = events.iter();
    let in_order = expected.iter().all(|expected| rest.any(|event| event == expected));
    assert!(in_order, "{expected:?} in {events:?}");
}

pub fn uuid() -> Uuid {
    Uuid::from_u128(u128::from_str_radix(&random_hex().unwrap(), 16).unwrap())
}
