//! LiveKit's JavaScript SDK in a real browser, with the start as its token source.

use greenroom_testkit::browser_page::Site;
use greenroom_testkit::http::Request;
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::pg::Database;
use greenroom_testkit::ports;
use greenroom_testkit::recording_proxy::RecordingProxy;
use serde_json::{Value, json};

use crate::app::{App, assert_in_order};

/// Serves a page that uses the documentation's example.
async fn app_page() -> Site {
    let example = include_str!("../../../../docs/examples/token-source.mjs");
    let files =
        [("/page.mjs", include_str!("browser_page/app.mjs")), ("/token-source.mjs", example)];
    Site::serve(&files).await.unwrap()
}

/// Starts Greenroom, which pages of this origin may call, and a LiveKit server that sends webhooks
/// to it.
async fn livekit_and_app(origin: &str) -> (Server, App) {
    let address = format!("127.0.0.1:{}", ports::free_tcp_port().unwrap());
    let webhook_urls = vec![format!("http://{address}/webhooks/livekit")];
    let livekit = Server::start_with(Options { webhook_urls, ..Options::default() }).await.unwrap();
    let changed = [("GREENROOM_LISTEN", address.as_str()), ("GREENROOM_CORS_ORIGINS", origin)];
    let app = App::on(Database::fresh().await.unwrap(), &livekit, &changed).await;
    (livekit, app)
}

/// Settings that make the page start this template as ann, through the proxy.
fn settings(app: &App, proxy: &RecordingProxy, template: &str) -> Value {
    json!({"greenroom": proxy.address(), "template": template, "accessToken": app.user_token("ann")})
}

/// Returns the requests with this method. All requests must be starts of this template from this
/// origin.
async fn requests_of(
    proxy: &RecordingProxy,
    method: &str,
    template: &str,
    origin: &str,
) -> Vec<Request> {
    let mut requests = proxy.requests().await.unwrap();
    for request in &requests {
        assert_eq!(
            (request.path.as_str(), request.header("origin")),
            (format!("/api/v1/sessions/start?session_template_id={template}").as_str(), origin)
        );
    }
    requests.retain(|request| request.method == method);
    requests
}

async fn sessions(app: &App) -> Vec<Value> {
    app.get("/api/v1/sessions").await.body.as_array().unwrap().clone()
}

#[tokio::test]
async fn page_publishes_what_template_allows_and_reload_resumes_session() {
    let site = app_page().await;
    let origin = site.origin().to_owned();
    let (livekit, app) = livekit_and_app(&origin).await;
    let proxy = RecordingProxy::start(&app.address).await.unwrap();
    let template = app.create_template(json!({"modality_profile": "audio"})).await;
    let mut page = site.open(settings(&app, &proxy, &template)).await.unwrap();

    let before = page.wait_for_report("joined", 0).await.unwrap();
    assert_eq!((&before["identity"], &before["microphone"]), (&json!("ann"), &json!(true)));
    let camera = before["camera"].as_str().unwrap();
    assert!(camera.contains("insufficient permissions"), "{camera}");

    let after = page.wait_for_report("joined", 1).await.unwrap();
    assert_eq!(after, before);
    let all = sessions(&app).await;
    let [session] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((&session["id"], &session["status"]), (&before["session"], &json!("active")));
    let path = format!("/api/v1/sessions/{}", session["id"].as_str().unwrap());
    assert_in_order(&app.events(&path).await, &["created", "user_joined", "user_left"]);
    let [ann] = &livekit.participants(before["room"].as_str().unwrap()).await.unwrap()[..] else {
        panic!("only ann is in the room")
    };
    let published: Vec<_> = ann.tracks.iter().map(|track| track.source().as_str_name()).collect();
    assert_eq!(published, ["MICROPHONE"]);

    let starts = requests_of(&proxy, "POST", &template, &origin).await;
    assert_eq!(starts.len(), 2, "one start per page load");
    for start in starts {
        assert_eq!((start.header("content-type"), &*start.body), ("application/json", "{}"));
        assert!(start.header("authorization").starts_with("Bearer "));
        assert_eq!(start.header("idempotency-key"), "");
    }
    let preflight = &requests_of(&proxy, "OPTIONS", &template, &origin).await[0];
    let headers = preflight.header("access-control-request-headers");
    assert_eq!(headers, "authorization,content-type");
}

#[tokio::test]
async fn sdk_caches_token_and_forced_fetch_gets_same_session() {
    let script = include_str!("browser_page/source.mjs");
    let site = Site::serve(&[("/page.mjs", script)]).await.unwrap();
    let origin = site.origin().to_owned();
    let app = App::with(&[("GREENROOM_CORS_ORIGINS", &origin)]).await;
    let proxy = RecordingProxy::start(&app.address).await.unwrap();
    let template = json!({"agent_name": "greeter", "room_creation": "on_join"});
    let template = app.create_template(template).await;
    let mut page = site.open(settings(&app, &proxy, &template)).await.unwrap();

    let fetched = page.wait_for_report("fetched", 0).await.unwrap();
    assert_eq!(fetched["cached"], fetched["first"]);
    assert_eq!(fetched["forced"]["session"], fetched["first"]["session"]);
    assert_eq!(fetched["named"]["name"], "Ann");
    assert_eq!(fetched["named"]["attributes"], json!({"language": "en"}));
    let refused = fetched["refused"].as_str().unwrap();
    assert!(refused.contains("422") && refused.contains("not_configurable"), "{refused}");
    assert_eq!(sessions(&app).await.len(), 2, "a different request starts another session");

    let bodies: Vec<Value> = requests_of(&proxy, "POST", &template, &origin)
        .await
        .iter()
        .map(|start| serde_json::from_str(&start.body).unwrap())
        .collect();
    let named = json!({"participant_name": "Ann", "participant_attributes": {"language": "en"},
                       "room_config": {"agents": [{"agent_name": "greeter"}]}});
    assert_eq!(bodies, [json!({}), json!({}), named, json!({"room_name": "mine"})]);
}

#[tokio::test]
async fn page_of_other_origin_cannot_start_session() {
    let site = app_page().await;
    let origin = site.origin().to_owned();
    let app = App::with(&[("GREENROOM_CORS_ORIGINS", "https://app.example.com")]).await;
    let proxy = RecordingProxy::start(&app.address).await.unwrap();
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let mut page = site.open(settings(&app, &proxy, &template)).await.unwrap();

    let refused = page.wait_for_report("refused", 0).await.unwrap();
    assert_eq!(refused["why"], "TypeError: Failed to fetch");
    assert_eq!(requests_of(&proxy, "OPTIONS", &template, &origin).await.len(), 1);
    assert_eq!(requests_of(&proxy, "POST", &template, &origin).await.len(), 0);
    assert_eq!(sessions(&app).await.len(), 0);
}
