//! LiveKit's own SDK in a page of a real browser: a start is what it calls a token source.

use greenroom_testkit::http::Request;
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::page::Site;
use greenroom_testkit::pg::Database;
use greenroom_testkit::place;
use greenroom_testkit::tap::Tap;
use serde_json::{Value, json};

use crate::app::{App, assert_in_order};

/// The page of an app, made of the documentation's example.
async fn app_page() -> Site {
    let example = include_str!("../../../../docs/examples/token-source.mjs");
    let files = [("/page.mjs", include_str!("page/app.mjs")), ("/token-source.mjs", example)];
    Site::serve(&files).await.unwrap()
}

/// A LiveKit that tells the program what happens, which pages of this origin may call.
async fn livekit_and_app(origin: &str) -> (Server, App) {
    let address = format!("127.0.0.1:{}", place::free_tcp_port().unwrap());
    let webhook_urls = vec![format!("http://{address}/webhooks/livekit")];
    let livekit = Server::start_with(Options { webhook_urls, ..Options::default() }).await.unwrap();
    let changed = [("GREENROOM_LISTEN", address.as_str()), ("GREENROOM_CORS_ORIGINS", origin)];
    let app = App::on(Database::fresh().await.unwrap(), &livekit, &changed).await;
    (livekit, app)
}

/// What the page is told: to start this template as ann, by way of the tap.
fn settings(app: &App, tap: &Tap, template: &str) -> Value {
    json!({"greenroom": tap.address(), "template": template, "accessToken": app.user_token("ann")})
}

/// What was sent with this method, all of it to the start of this template by a page of this origin.
async fn sent(tap: &Tap, method: &str, template: &str, origin: &str) -> Vec<Request> {
    let mut requests = tap.requests().await.unwrap();
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
async fn a_page_talks_as_its_template_allows_and_a_reload_leads_back_into_its_session() {
    let site = app_page().await;
    let origin = site.origin().to_owned();
    let (livekit, app) = livekit_and_app(&origin).await;
    let tap = Tap::to(&app.address).await.unwrap();
    let template = app.template(json!({"modality_profile": "audio"})).await;
    let mut page = site.open(settings(&app, &tap, &template)).await.unwrap();

    let before = page.tells("joined", 0).await.unwrap();
    assert_eq!((&before["identity"], &before["microphone"]), (&json!("ann"), &json!(true)));
    let camera = before["camera"].as_str().unwrap();
    assert!(camera.contains("insufficient permissions"), "{camera}");

    let after = page.tells("joined", 1).await.unwrap();
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

    let starts = sent(&tap, "POST", &template, &origin).await;
    assert_eq!(starts.len(), 2, "one for each time that the page was opened");
    for start in starts {
        assert_eq!((start.header("content-type"), &*start.body), ("application/json", "{}"));
        assert!(start.header("authorization").starts_with("Bearer "));
        assert_eq!(start.header("idempotency-key"), "");
    }
    let preflight = &sent(&tap, "OPTIONS", &template, &origin).await[0];
    let headers = preflight.header("access-control-request-headers");
    assert_eq!(headers, "authorization,content-type");
}

#[tokio::test]
async fn the_sdk_keeps_a_token_and_asked_again_gets_the_same_session() {
    let script = include_str!("page/source.mjs");
    let site = Site::serve(&[("/page.mjs", script)]).await.unwrap();
    let origin = site.origin().to_owned();
    let app = App::with(&[("GREENROOM_CORS_ORIGINS", &origin)]).await;
    let tap = Tap::to(&app.address).await.unwrap();
    let template = json!({"agent_name": "greeter", "room_creation": "on_join"});
    let template = app.template(template).await;
    let mut page = site.open(settings(&app, &tap, &template)).await.unwrap();

    let told = page.tells("fetched", 0).await.unwrap();
    assert_eq!(told["kept"], told["first"]);
    assert_eq!(told["forced"]["session"], told["first"]["session"]);
    assert_eq!(told["named"]["name"], "Ann");
    assert_eq!(told["named"]["attributes"], json!({"language": "en"}));
    let refused = told["refused"].as_str().unwrap();
    assert!(refused.contains("422") && refused.contains("not_configurable"), "{refused}");
    assert_eq!(sessions(&app).await.len(), 2, "another request is another session");

    let bodies: Vec<Value> = sent(&tap, "POST", &template, &origin)
        .await
        .iter()
        .map(|start| serde_json::from_str(&start.body).unwrap())
        .collect();
    let named = json!({"participant_name": "Ann", "participant_attributes": {"language": "en"},
                       "room_config": {"agents": [{"agent_name": "greeter"}]}});
    assert_eq!(bodies, [json!({}), json!({}), named, json!({"room_name": "mine"})]);
}

#[tokio::test]
async fn a_page_of_another_origin_gets_nothing_and_starts_nothing() {
    let site = app_page().await;
    let origin = site.origin().to_owned();
    let app = App::with(&[("GREENROOM_CORS_ORIGINS", "https://app.example.com")]).await;
    let tap = Tap::to(&app.address).await.unwrap();
    let template = app.template(json!({"room_creation": "on_join"})).await;
    let mut page = site.open(settings(&app, &tap, &template)).await.unwrap();

    let refused = page.tells("refused", 0).await.unwrap();
    assert_eq!(refused["why"], "TypeError: Failed to fetch");
    assert_eq!(sent(&tap, "OPTIONS", &template, &origin).await.len(), 1);
    assert_eq!(sent(&tap, "POST", &template, &origin).await.len(), 0);
    assert_eq!(sessions(&app).await.len(), 0);
}
