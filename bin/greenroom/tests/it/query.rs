//! Reading and listing sessions over HTTP.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use greenroom_testkit::caller;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{AUTH_SECRET, Answer, App, answer, uuid};

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn session_has_fields_of_its_start() {
    let app = App::start().await;
    let template = app
        .create_template(
            json!({"room_creation": "on_join", "modality_profile": "camera", "enabled_panels": []}),
        )
        .await;
    let started =
        app.start_session(&template, json!({"user_id": "ann", "metadata": {"order": 42}})).await;
    let session = app.get(started.header("location")).await;
    assert_eq!(session.status, 200);
    for (field, value) in [
        ("id", started.body["session_id"].clone()),
        ("room_name", started.body["room_name"].clone()),
        ("token_expiry", started.body["token_expiry"].clone()),
        ("join_by", started.body["join_by"].clone()),
        ("status", json!("pending")),
        ("agent_status", json!("none")),
        ("session_template_id", json!(template)),
        ("user_id", json!("ann")),
        ("modality_profile", json!("camera")),
        ("enabled_panels", json!([])),
        ("metadata", json!({"order": 42})),
        ("started_at", Value::Null),
        ("ended_at", Value::Null),
        ("end_reason", Value::Null),
    ] {
        assert_eq!(session.body[field], value, "{field}");
    }
    assert_eq!(session.body.as_object().unwrap().len(), 15, "{}", session.body);
    assert!(session.body["created_at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn metadata_is_returned_unchanged() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    for metadata in [
        json!({}),
        json!({"largest": f64::MAX, "least": f64::MIN, "smallest": 5e-324, "tenth": 0.1}),
        json!({"largest": u64::MAX, "least": i64::MIN}),
        json!({"": {"text": "\u{1f600}\u{1}\u{7f}\u{2028}\"\\", "none": null, "list": [[], {}, true]}}),
    ] {
        let started = app.start_session(&template, json!({"metadata": metadata})).await;
        assert_eq!(started.status, 201, "{metadata}: {}", started.body);
        assert_eq!(app.get(started.header("location")).await.body["metadata"], metadata);
    }
}

#[tokio::test]
async fn session_of_other_organization_is_not_found() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let started = app.start_session(&template, json!({})).await;
    let other_organization = caller::backend_token(AUTH_SECRET, uuid());
    for path in [started.header("location"), &format!("/api/v1/session-templates/{template}")] {
        let request =
            app.client.get(format!("{}{path}", app.address)).bearer_auth(&other_organization);
        assert_eq!(answer(request).await.status, 404, "{path}");
    }
    let list =
        app.client.get(format!("{}/api/v1/sessions", app.address)).bearer_auth(&other_organization);
    assert_eq!(answer(list).await.body, json!([]));
    app.get(&format!("/api/v1/sessions/{}", uuid())).await.assert_problem(404, "session_not_found");
    let wrong = app.get("/api/v1/sessions/42").await;
    wrong.assert_problem(400, "invalid_request");
    assert_eq!(wrong.fields(), ["session_id"]);
}

#[tokio::test]
async fn list_is_newest_first_and_filtered_by_user_and_status() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let mut started = Vec::new();
    for user in ["ann", "ben", "ann"] {
        let answer = app.start_session(&template, json!({"user_id": user})).await;
        started.push(answer.body["session_id"].as_str().unwrap().to_owned());
    }
    let [first, second, third] = &started[..] else { panic!("{started:?}") };
    let list = async |query: &str| app.get(&format!("/api/v1/sessions{query}")).await.body;
    assert_eq!(ids(&list("").await), [third, second, first]);
    assert_eq!(ids(&list("?limit=2").await), [third, second]);
    assert_eq!(ids(&list("?limit=2&offset=2").await), [first]);
    assert_eq!(ids(&list("?user_id=ann").await), [third, first]);
    assert_eq!(ids(&list("?status=pending").await), [third, second, first]);
    assert_eq!(ids(&list("?status=failed,ended").await), [""; 0]);
    assert_eq!(ids(&list("?status=failed,pending&user_id=ben&limit=200&offset=0").await), [second]);
}

#[tokio::test]
async fn list_is_filtered_by_template_and_time() {
    let app = App::start().await;
    let (one, other) = (
        app.create_template(json!({"room_creation": "on_join"})).await,
        app.create_template(json!({"room_creation": "on_join"})).await,
    );
    let mut started = Vec::new();
    for template in [&one, &other, &one] {
        let session = app.start_session(template, json!({})).await.header("location").to_owned();
        started.push(app.get(&session).await.body);
    }
    let id = |index: usize| started[index]["id"].as_str().unwrap();
    let at = |index: usize| started[index]["created_at"].as_str().unwrap();
    let list = async |query: &str| app.get(&format!("/api/v1/sessions?{query}")).await.body;
    assert_eq!(ids(&list(&format!("session_template_id={other}")).await), [id(1)]);
    assert_eq!(ids(&list(&format!("created_after={}", at(1))).await), [id(2), id(1)], "inclusive");
    assert_eq!(ids(&list(&format!("created_before={}", at(1))).await), [id(0)], "exclusive");
    let between = format!("created_after={}&created_before={}", at(0), at(2));
    assert_eq!(ids(&list(&between).await), [id(1), id(0)]);
    // The same time in another time zone.
    let time: chrono::DateTime<chrono::Utc> = at(2).parse().unwrap();
    let zone = chrono::FixedOffset::east_opt(2 * 3600).unwrap();
    let zoned = time.with_timezone(&zone).to_rfc3339().replace('+', "%2B");
    assert_eq!(ids(&list(&format!("created_after={zoned}")).await), [id(2)]);
    assert_eq!(ids(&list(&format!("session_template_id={}", uuid())).await), [""; 0]);
}

/// The path of the next page from the `Link` header. `None` means that this is the last page.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    let path = link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?;
    Some(path.to_owned())
}

#[tokio::test]
async fn links_keep_every_filter_until_last_page() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let mut anns = Vec::new();
    for number in 0..9 {
        let user = if number % 2 == 0 { "ann & co" } else { "ben" };
        let session = app.start_session(&template, json!({"user_id": user})).await.body;
        if number % 2 == 0 {
            anns.insert(0, session["session_id"].as_str().unwrap().to_owned());
        }
    }
    let mut path =
        Some("/api/v1/sessions?user_id=ann%20%26%20co&status=pending,active&limit=2".to_owned());
    let (mut walked, mut pages) = (Vec::new(), 0);
    while let Some(page) = path {
        let answer = app.get(&page).await;
        assert_eq!(answer.status, 200, "{page}: {}", answer.body);
        walked.extend(ids(&answer.body).into_iter().map(str::to_owned));
        path = next(&answer);
        pages += 1;
        if let Some(path) = &path {
            assert!(path.contains("limit=2") && path.contains("status=pending"), "{path}");
        }
    }
    assert_eq!((walked, pages), (anns, 3));
    let with_offset = app.get("/api/v1/sessions?limit=2&offset=6").await;
    let rest = app.get(&next(&with_offset).unwrap()).await;
    assert_eq!(rest.body.as_array().unwrap().len(), 1, "the cursor continues after the offset");
}

#[tokio::test]
async fn links_return_each_existing_session_once_despite_concurrent_starts() {
    let app = Arc::new(App::start().await);
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    for _ in 0..60 {
        assert_eq!(app.start_session(&template, json!({})).await.status, 201);
    }
    let before = app.get("/api/v1/sessions?limit=200").await.body;
    let walking = Arc::new(AtomicBool::new(true));
    let starters = (0..4).map(|_| {
        let (app, template, walking) = (app.clone(), template.clone(), walking.clone());
        tokio::spawn(async move {
            let mut started = 0;
            while walking.load(Ordering::Relaxed) {
                assert_eq!(app.start_session(&template, json!({})).await.status, 201);
                started += 1;
            }
            started
        })
    });
    let starters: Vec<_> = starters.collect();
    let (mut path, mut walked) = (Some("/api/v1/sessions?limit=3".to_owned()), Vec::new());
    while let Some(page) = path {
        let answer = app.get(&page).await;
        walked.extend(ids(&answer.body).into_iter().map(str::to_owned));
        path = next(&answer);
    }
    walking.store(false, Ordering::Relaxed);
    let mut started = 0;
    for starter in starters {
        started += starter.await.unwrap();
    }
    assert!(started > 0, "control: no session was started during the walk");
    for id in ids(&before) {
        assert_eq!(walked.iter().filter(|walked| *walked == id).count(), 1, "{id}");
    }
    let all: HashSet<_> = walked.iter().collect();
    assert_eq!(all.len(), walked.len(), "a session was returned twice");
}

#[tokio::test]
async fn cursor_of_other_list_is_refused() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    for _ in 0..2 {
        app.start_session(&template, json!({"user_id": "ann"})).await;
    }
    let first = next(&app.get("/api/v1/sessions?limit=1").await).unwrap();
    let cursor = first.split("cursor=").nth(1).unwrap().to_owned();
    assert_eq!(app.get(&first).await.status, 200, "control: the cursor is valid for its own list");
    for query in ["&user_id=ann", "&status=pending", &format!("&session_template_id={template}")] {
        let path = format!("/api/v1/sessions?cursor={cursor}{query}");
        app.get(&path).await.assert_problem(400, "invalid_cursor");
    }
    let templates = format!("/api/v1/session-templates?cursor={cursor}");
    app.get(&templates).await.assert_problem(400, "invalid_cursor");
    let claims = |org: Uuid, user: Option<&str>| {
        let mut claims = json!({"org_id": org, "exp": caller::seconds_from_now(60)});
        if let Some(user) = user {
            claims["user_id"] = json!(user);
        }
        caller::token(AUTH_SECRET, &claims)
    };
    for token in [claims(uuid(), None), claims(app.organization, Some("ann"))] {
        let request = app.client.get(format!("{}{first}", app.address)).bearer_auth(token);
        answer(request).await.assert_problem(400, "invalid_cursor");
    }
    for wrong in ["", "x", "%00", "%ff", &cursor[1..], &format!("{cursor}A"), &"A".repeat(4000)] {
        let refused = app.get(&format!("/api/v1/sessions?cursor={wrong}")).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
    let both = app.get(&format!("/api/v1/sessions?cursor={cursor}&offset=0")).await;
    both.assert_problem(400, "invalid_request");
    assert_eq!(both.fields(), ["offset"]);
}

#[tokio::test]
async fn wrong_parameters_are_reported_by_name() {
    let app = App::start().await;
    for (query, fields) in [
        ("?limit=0", vec!["limit"]),
        ("?limit=201", vec!["limit"]),
        ("?limit=ten&offset=-1&status=lost&user_id=", vec!["limit", "offset", "status", "user_id"]),
        ("?offset=10001", vec!["offset"]),
        ("?offset=99999999999999999999999", vec!["offset"]),
        ("?user_id=a%00b", vec!["user_id"]),
        ("?status=", vec!["status"]),
        ("?limit=1&limit=2", vec!["query"]),
        ("?user_id=%ff", vec!["query"]),
        ("?session_template_id=42", vec!["session_template_id"]),
        (
            "?created_after=yesterday&created_before=2026-11-22",
            vec!["created_after", "created_before"],
        ),
    ] {
        let refused = app.get(&format!("/api/v1/sessions{query}")).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), fields, "{query}");
    }
}
