//! Session templates over HTTP.

use serde_json::{Value, json};

use crate::app::{App, uuid};

const TEMPLATES: &str = "/api/v1/session-templates";

#[tokio::test]
async fn a_template_has_its_defaults() {
    let app = App::start().await;
    let created = app.post(TEMPLATES, &json!({"name": "Support"})).await;
    assert_eq!(created.status, 201, "{}", created.body);
    for (field, value) in [
        ("version", json!(1)),
        ("name", json!("Support")),
        ("modality_profile", Value::Null),
        ("enabled_panels", Value::Null),
        ("agent_name", Value::Null),
        ("agent_metadata", json!({})),
        ("agent_required", json!(false)),
        ("agent_deadline_seconds", Value::Null),
        ("on_agent_hangup", json!("keep")),
        ("room_creation", json!("on_start")),
        ("join_window_seconds", json!(600)),
        ("reconnect_window_seconds", json!(60)),
        ("max_duration_seconds", json!(7200)),
        ("token_ttl_seconds", Value::Null),
        ("archived_at", Value::Null),
    ] {
        assert_eq!(created.body[field], value, "{field}");
    }
    assert_eq!(created.body["created_at"], created.body["updated_at"]);
    let id = created.body["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("{TEMPLATES}/{id}")).await.body, created.body);
    assert_eq!(app.get(TEMPLATES).await.body, json!([created.body]));
    app.get(&format!("{TEMPLATES}/{}", uuid())).await.assert_problem(404, "template_not_found");
}

#[tokio::test]
async fn what_is_set_is_kept() {
    let app = App::start().await;
    let settings = json!({
        "name": "Everything", "modality_profile": "audio+camera+screen+text", "enabled_panels": ["a", "b.c_d-e"],
        "agent_name": "greeter", "agent_metadata": {"deep": [1, {"a": null}]}, "agent_required": false,
        "agent_deadline_seconds": 5, "on_agent_hangup": "end", "room_creation": "on_start",
        "join_window_seconds": 30, "reconnect_window_seconds": 5, "max_duration_seconds": 60, "token_ttl_seconds": 60,
    });
    let created = app.post(TEMPLATES, &settings).await.body;
    for (field, value) in settings.as_object().unwrap() {
        assert_eq!(&created[field], value, "{field}");
    }
}

#[tokio::test]
async fn a_named_agent_is_required_unless_said_otherwise() {
    let app = App::start().await;
    let created = app.post(TEMPLATES, &json!({"name": "a", "agent_name": "greeter"})).await.body;
    assert_eq!(created["agent_required"], true);
}

#[tokio::test]
async fn a_name_is_taken_without_regard_to_case() {
    let app = App::start().await;
    assert_eq!(app.post(TEMPLATES, &json!({"name": "Support"})).await.status, 201);
    app.post(TEMPLATES, &json!({"name": "sUPPORT"}))
        .await
        .assert_problem(409, "template_name_taken");
    let created =
        futures_util::future::join_all((0..8).map(|_| app.post(TEMPLATES, &BODY_OF_MANY))).await;
    let statuses = |wanted| created.iter().filter(|answer| answer.status == wanted).count();
    assert_eq!((statuses(201), statuses(409)), (1, 7), "eight at once");
}

static BODY_OF_MANY: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| json!({"name": "Many"}));

#[tokio::test]
async fn every_wrong_field_is_named_with_its_place() {
    let app = App::start().await;
    let refused = app
        .post(
            TEMPLATES,
            &json!({
                "name": "", "modality_profile": "video", "enabled_panels": ["ok", "not ok"], "agent_name": "greenroom.x",
                "agent_metadata": {"k": "x".repeat(4096)}, "agent_deadline_seconds": 4, "on_agent_hangup": "stay",
                "room_creation": "later", "join_window_seconds": 29, "reconnect_window_seconds": 3601,
                "max_duration_seconds": 59, "token_ttl_seconds": 86_401,
            }),
        )
        .await;
    refused.assert_problem(400, "invalid_request");
    assert_eq!(
        refused.fields(),
        [
            "name",
            "modality_profile",
            "enabled_panels[1]",
            "agent_name",
            "agent_metadata",
            "agent_deadline_seconds",
            "on_agent_hangup",
            "room_creation",
            "join_window_seconds",
            "reconnect_window_seconds",
            "max_duration_seconds",
            "token_ttl_seconds"
        ]
    );
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": "a\u{0}b"}), "name"),
        (json!({"name": "n", "enabled_panels": ["a", null]}), "enabled_panels[1]"),
        (json!({"name": "n", "enabled_panels": "chat"}), "enabled_panels"),
        (json!({"name": "n", "agent_required": true}), "agent_required"),
        (
            json!({"name": "n", "room_creation": "on_join", "agent_metadata": {"a": 1}}),
            "agent_metadata",
        ),
        (json!({"name": "n", "token_ttl_seconds": 1.5}), "token_ttl_seconds"),
        (
            json!({"name": "n", "token_ttl_seconds": 18_446_744_073_709_551_615_u64}),
            "token_ttl_seconds",
        ),
        (json!({"name": "n", "modality_profil": "audio"}), "modality_profil"),
    ] {
        let refused = app.post(TEMPLATES, &body).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), [field], "{}", refused.body);
    }
    assert_eq!(app.get(TEMPLATES).await.body, json!([]));
}
