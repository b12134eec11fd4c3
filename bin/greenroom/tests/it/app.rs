//! A running `greenroom`, and one function for what tests ask of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::process::{Guarded, Process};
use greenroom_testkit::user::{Report, User};
use greenroom_testkit::{caller, place, wait_until};
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

/// The program, running, with a database of its own.
pub struct App {
    // Stopped before its database is dropped.
    pub process: Process,
    pub pid: String,
    pub address: String,
    pub organization: Uuid,
    pub client: Client,
    database: Database,
}

/// An answer, read to its end.
pub struct Answer {
    /// The method and the path that were asked.
    asked: (String, String),
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

    /// The wrong fields of a 400.
    pub fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().filter_map(|error| error["field"].as_str()).collect()
    }

    /// That it is the failure with this status and code, in the shape every failure has.
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
        if let Some(operation) = documented(&self.asked) {
            let named = operation["responses"][status.to_string()]["description"].as_str();
            let named = named.is_some_and(|codes| codes.split(", ").any(|named| named == code));
            assert!(named, "the document does not name {code} at {:?}", self.asked);
        }
    }
}

/// The environment of a program with this database and this LiveKit.
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
    /// The program with the LiveKit that tests share.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The program with some variables of its environment changed.
    pub async fn with(changed: &[(&'static str, &str)]) -> Self {
        let database = Database::fresh().await.unwrap();
        let livekit = Server::shared().await.unwrap();
        Self::on(database, livekit, changed).await
    }

    pub async fn on(
        database: Database,
        livekit: &Server,
        changed: &[(&'static str, &str)],
    ) -> Self {
        let mut environment = environment(database.url(), livekit);
        environment.extend(changed.iter().map(|(name, text)| (*name, (*text).to_owned())));
        let home = place::temporary("greenroom", None).unwrap();
        let log = home.join("greenroom.log");
        let mut program = Guarded::new("greenroom", env!("CARGO_BIN_EXE_greenroom"), log)
            .args(["serve"])
            .removing(home);
        // What the tester has exported for a deployment must not mix with what is set here.
        let prefixes = ["GREENROOM_", "DATABASE_", "LIVEKIT_", "AUTH_"];
        let exported = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in exported.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
            program = program.without_env(name);
        }
        for (name, text) in &environment {
            program = program.env(name, text);
        }
        let mut process = program.start().unwrap();
        let listening = wait_until("greenroom listens", Duration::from_secs(20), async || {
            process.check()?;
            let output = process.output();
            let line = output.lines().find(|line| line.contains("listening"));
            // In text `address=…`, in JSON `"address":"…"`.
            let field = |name| {
                let value = line?.split(name).nth(1)?.trim_start_matches(['"', '=', ':']);
                value.split([' ', '"', ',']).next().map(str::to_owned)
            };
            Ok(field("address").zip(field("pid")))
        });
        let (address, pid) = listening.await.unwrap();
        let address = format!("http://{address}");
        // reqwest wants one even for plain HTTP; another test may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A request may take what the program allows itself, and no more. A connection is not used
        // again when the program may just be closing it, after five seconds.
        let client = Client::builder()
            .timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(3))
            .build()
            .unwrap();
        Self { process, pid, address, organization: uuid(), client, database }
    }

    /// A token of a backend of this app's organization.
    pub fn token(&self) -> String {
        caller::backend(AUTH_SECRET, self.organization)
    }

    /// A token of an end user of this app's organization.
    pub fn user_token(&self, user: &str) -> String {
        let claims =
            json!({"org_id": self.organization, "exp": caller::in_seconds(3_600), "user_id": user});
        caller::token(AUTH_SECRET, &claims)
    }

    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    /// Another process on the same database, for the same organization.
    pub async fn replica(&self, changed: &[(&'static str, &str)]) -> Self {
        let same = ("DATABASE_URL", self.database.url());
        let replica = Self::with(&[&[same], changed].concat()).await;
        Self { organization: self.organization, ..replica }
    }

    /// The password in `DATABASE_URL`.
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

    /// Asks as an end user.
    pub async fn ask_as(&self, user: &str, method: Method, path: &str) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.address));
        answer(request.bearer_auth(self.user_token(user))).await
    }

    /// What has happened to a session, in its order.
    pub async fn events(&self, session: &str) -> Vec<String> {
        let timeline = self.get(&format!("{session}/timeline")).await;
        assert_eq!(timeline.status, 200, "{}", timeline.body);
        let event = |entry: &Value| entry["event"].as_str().unwrap().to_owned();
        timeline.body.as_array().unwrap().iter().map(event).collect()
    }

    /// The session, as soon as it has this status.
    pub async fn becomes(&self, session: &str, status: &str, patience: Duration) -> Value {
        wait_until(&format!("the session to be {status}"), patience, async || {
            let body = self.get(session).await.body;
            anyhow::ensure!(body["status"] == status, "{body}");
            Ok(Some(body))
        })
        .await
        .unwrap()
    }

    /// Sends these bytes on a connection of their own, and reads the head of what comes back: what a
    /// well-behaved client would not send.
    pub async fn raw(&self, bytes: &str) -> String {
        let address = self.address.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.unwrap();
        // A server that has read enough closes the connection while there is more to send.
        let _ = connection.write_all(bytes.as_bytes()).await;
        let mut head = vec![0; 4096];
        let patience = Duration::from_secs(10);
        let read =
            timeout(patience, connection.read(&mut head)).await.expect("an answer, or an end");
        head.truncate(read.unwrap_or_default());
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Sends these bytes and resets the connection soon after, as the end of a client does that was
    /// killed while it waited.
    pub async fn send_and_reset(&self, bytes: &str) {
        let address = self.address.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(bytes.as_bytes()).await.unwrap();
        // An answer that comes at once is none that is waited for.
        let _ = timeout(Duration::from_millis(300), connection.read(&mut [0; 1024])).await;
        connection.set_zero_linger().unwrap();
    }

    /// The memory it holds beside its own code, in kilobytes: a debug build's code is 36 MB, of
    /// which more is resident the more of it has run.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let held = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        held.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sets how many of this app's organization's sessions may live at once, as the command does.
    pub async fn limit(&self, limit: &str) {
        let organization = self.organization.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.args(["organization", "limit", &organization, limit]).env_clear();
        let set = command.env("DATABASE_URL", self.database.url()).output().await.unwrap();
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    }

    /// A template with these settings beside a name nobody has; its id.
    pub async fn template(&self, settings: Value) -> String {
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

/// The operation of the document that was asked for, if it is one.
fn documented((method, path): &(String, String)) -> Option<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap()
    });
    let is_it = |known: &str| {
        let (known, own): (Vec<_>, Vec<_>) =
            (known.split('/').collect(), path.split('/').collect());
        let same = |(known, own): (&&str, &&str)| {
            known == own || (known.starts_with('{') && !own.is_empty())
        };
        known.len() == own.len() && known.iter().zip(&own).all(same)
    };
    let paths = DOCUMENT["paths"].as_object()?;
    // A path that is written out comes before one with an id in it.
    let path = paths
        .get(path)
        .or_else(|| paths.iter().find(|(known, _)| is_it(known)).map(|(_, methods)| methods))?;
    path.get(method.to_lowercase())
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let asked = (request.method().to_string(), request.url().path().to_owned());
    let response = client.execute(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { asked, status, headers, body }
}

/// What a token says, unverified: that LiveKit accepts it is shown where a user joins with it.
pub fn claims(token: &str) -> HashMap<String, Value> {
    jsonwebtoken::dangerous::insecure_decode(token).unwrap().claims
}

/// Joins with the pass of a start, and leaves after this time.
pub fn stay(started: &Value, time: Duration) -> JoinHandle<anyhow::Result<Report>> {
    let text = |field: &str| started[field].as_str().unwrap();
    // No agent greets it, so it waits as long as it would for one.
    let user = User::new(text("server_url"), text("participant_token")).greeting_within(time);
    tokio::spawn(user.join())
}

/// That these stand in a timeline in this order, whatever stands between them.
#[track_caller]
pub fn assert_in_order(events: &[String], expected: &[&str]) {
    let mut rest = events.iter();
    let all = expected.iter().all(|expected| rest.any(|event| event == expected));
    assert!(all, "{expected:?} in {events:?}");
}

pub fn uuid() -> Uuid {
    Uuid::from_u128(u128::from_str_radix(&place::random_hex().unwrap(), 16).unwrap())
}
