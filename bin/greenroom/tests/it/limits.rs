//! The limits on open sessions and on starts per minute.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, App, answer, uuid};

const LIMITS: &str = "/api/v1/limits";

async fn template(app: &App) -> String {
    app.create_template(json!({"room_creation": "on_join"})).await
}

/// Starts a session with an idempotency key.
async fn start(app: &App, template: &str, key: &str) -> Answer {
    let request = app.request(Method::POST, "/api/v1/sessions/start");
    let body = json!({"session_template_id": template});
    answer(request.header("idempotency-key", key).json(&body)).await
}

fn statuses(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

async fn limits(app: &App) -> Value {
    let limits = app.get(LIMITS).await;
    assert_eq!(limits.status, 200, "{}", limits.body);
    limits.body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_concurrent_starts_with_limit_ten_start_ten_sessions() {
    let changed = [("GREENROOM_MAX_ACTIVE_SESSIONS", "10")];
    let one = App::with(&changed).await;
    let two = one.replica(&changed).await;
    let template = template(&one).await;
    let starts = (0..200).map(|number| {
        let app = if number % 2 == 0 { &one } else { &two };
        app.start_session(&template, json!({}))
    });
    let answers = join_all(starts).await;
    assert_eq!((statuses(&answers, 201), statuses(&answers, 429)), (10, 190));
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    refused.assert_problem(429, "too_many_active_sessions");
    for (header, text) in [
        ("ratelimit-limit", "10"),
        ("ratelimit-remaining", "0"),
        ("ratelimit-reset", "10"),
        ("retry-after", "10"),
    ] {
        assert_eq!(refused.header(header), text, "{header}");
    }
    assert_eq!(one.get("/api/v1/sessions").await.body.as_array().unwrap().len(), 10);
    assert_eq!(limits(&two).await["active_sessions"], 10);
}

#[tokio::test]
async fn organization_limit_takes_precedence_over_server_limit() {
    let app = App::with(&[("GREENROOM_MAX_ACTIVE_SESSIONS", "1")]).await;
    let template = template(&app).await;
    for (limit, reported, starts) in
        [("default", json!(1), 1), ("3", json!(3), 2), ("unlimited", Value::Null, 2)]
    {
        app.set_session_limit(limit).await;
        assert_eq!(limits(&app).await["max_active_sessions"], reported);
        for _ in 0..starts {
            assert_eq!(app.start_session(&template, json!({})).await.status, 201, "{limit}");
        }
        let over = app.start_session(&template, json!({})).await;
        if limit == "unlimited" {
            assert_eq!(over.status, 201, "{}", over.body);
        } else {
            over.assert_problem(429, "too_many_active_sessions");
        }
    }
    // A limit also applies at once to an organization that had none before.
    app.set_session_limit("0").await;
    app.start_session(&template, json!({})).await.assert_problem(429, "too_many_active_sessions");
    assert_eq!(limits(&app).await["active_sessions"], 6);
}

#[tokio::test]
async fn ended_session_no_longer_counts() {
    let app = App::start().await;
    let template = template(&app).await;
    app.set_session_limit("1").await;
    let first = app.start_session(&template, json!({})).await;
    assert_eq!(first.status, 201, "{}", first.body);
    app.start_session(&template, json!({})).await.assert_problem(429, "too_many_active_sessions");
    let ended = app.post(&format!("{}/end", first.header("location")), &json!({})).await;
    assert_eq!(ended.status, 200, "{}", ended.body);
    assert_eq!(app.start_session(&template, json!({})).await.status, 201);
}

#[tokio::test]
async fn replay_does_not_count_and_succeeds_at_the_limit() {
    let app = App::start().await;
    let template = template(&app).await;
    app.set_session_limit("1").await;
    let first = start(&app, &template, "first").await;
    assert_eq!(first.status, 201, "{}", first.body);
    for _ in 0..2 {
        let again = start(&app, &template, "first").await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"));
        assert_eq!(again.body["session_id"], first.body["session_id"]);
    }
    start(&app, &template, "second").await.assert_problem(429, "too_many_active_sessions");
    // A missing template is reported before the limit.
    let missing = uuid().to_string();
    start(&app, &missing, "third").await.assert_problem(404, "template_not_found");
    app.set_session_limit("2").await;
    let second = start(&app, &template, "second").await;
    assert_eq!(second.status, 201, "a refused start does not use up its key: {}", second.body);
}

#[tokio::test]
async fn limit_zero_refuses_every_start() {
    let app = App::start().await;
    let template = template(&app).await;
    app.set_session_limit("0").await;
    for _ in 0..2 {
        let refused = app.start_session(&template, json!({})).await;
        refused.assert_problem(429, "too_many_active_sessions");
        assert_eq!(refused.header("ratelimit-limit"), "0");
    }
    assert_eq!(app.get("/api/v1/sessions").await.body, json!([]));
}

#[tokio::test]
async fn starts_per_minute_count_replays_and_are_per_process() {
    let app = App::with(&[("GREENROOM_STARTS_PER_MINUTE", "3")]).await;
    let template = template(&app).await;
    for left in [2, 1, 0] {
        let started = start(&app, &template, "same").await;
        assert_eq!(started.status, 201, "{}", started.body);
        assert_eq!(limits(&app).await["starts_remaining"], left);
    }
    let refused = start(&app, &template, "same").await;
    refused.assert_problem(429, "rate_limited");
    assert_eq!(refused.header("ratelimit-limit"), "3");
    assert_eq!(refused.header("ratelimit-remaining"), "0");
    let seconds = |name| refused.header(name).parse::<u64>().unwrap();
    assert!((1..=20).contains(&seconds("retry-after")), "{}", seconds("retry-after"));
    assert!((40..=60).contains(&seconds("ratelimit-reset")), "{}", seconds("ratelimit-reset"));
    let other = app.replica(&[]).await;
    assert_eq!(
        other.start_session(&template, json!({})).await.status,
        201,
        "the limit of one process"
    );
}

#[tokio::test]
async fn absent_limits_are_null_and_end_users_may_not_read_limits() {
    let app = App::start().await;
    let unlimited = json!({"max_active_sessions": null, "active_sessions": 0,
                           "starts_per_minute": null, "starts_remaining": null});
    assert_eq!(limits(&app).await, unlimited);
    app.request_as("ann", Method::GET, LIMITS).await.assert_problem(403, "user_forbidden");
}
