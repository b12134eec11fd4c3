//! Session templates over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, App, answer, uuid};

const TEMPLATES: &str = "/api/v1/session-templates";

#[tokio::test]
async fn new_template_has_defaults() {
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
async fn settings_are_returned_as_sent() {
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
async fn named_agent_is_required_by_default() {
    let app = App::start().await;
    let created = app.post(TEMPLATES, &json!({"name": "a", "agent_name": "greeter"})).await.body;
    assert_eq!(created["agent_required"], true);
}

#[tokio::test]
async fn name_is_unique_ignoring_case() {
    let app = App::start().await;
    assert_eq!(app.post(TEMPLATES, &json!({"name": "Support"})).await.status, 201);
    app.post(TEMPLATES, &json!({"name": "sUPPORT"}))
        .await
        .assert_problem(409, "template_name_taken");
    let created =
        futures_util::future::join_all((0..8).map(|_| app.post(TEMPLATES, &BODY_OF_MANY))).await;
    let statuses = |status| created.iter().filter(|answer| answer.status == status).count();
    assert_eq!((statuses(201), statuses(409)), (1, 7), "one of eight concurrent requests");
}

static BODY_OF_MANY: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| json!({"name": "Many"}));

#[tokio::test]
async fn all_wrong_fields_are_reported_with_their_path() {
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

async fn patch(app: &App, id: &str, body: Value) -> Answer {
    answer(app.request(Method::PATCH, &format!("{TEMPLATES}/{id}")).json(&body)).await
}

#[tokio::test]
async fn patch_keeps_absent_fields_and_null_restores_default() {
    let app = App::start().await;
    let id = app
        .create_template(json!({
            "name": "Before", "agent_name": "greeter", "agent_metadata": {"a": 1, "deep": {"b": 2, "c": 3}},
            "modality_profile": "audio", "enabled_panels": ["chat"], "max_duration_seconds": 60,
            "token_ttl_seconds": 120, "on_agent_hangup": "end",
        }))
        .await;
    let before = app.get(&format!("{TEMPLATES}/{id}")).await.body;
    let changed =
        patch(&app, &id, json!({"name": "After", "modality_profile": "text+camera"})).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let mut expected = before.clone();
    for (field, value) in [
        ("name", json!("After")),
        ("modality_profile", json!("camera+text")),
        ("version", json!(2)),
        ("updated_at", changed.body["updated_at"].clone()),
    ] {
        expected[field] = value;
    }
    assert_eq!(changed.body, expected);
    assert!(changed.body["updated_at"].as_str() > before["updated_at"].as_str());
    assert_eq!(app.get(&format!("{TEMPLATES}/{id}")).await.body, expected);

    // RFC 7396 merges objects: null removes a member, and an array is replaced as a whole.
    let merged = patch(
        &app,
        &id,
        json!({"agent_metadata": {"deep": {"b": null, "d": 4}, "a": null}, "enabled_panels": ["notes"]}),
    )
    .await;
    assert_eq!(merged.body["agent_metadata"], json!({"deep": {"c": 3, "d": 4}}));
    assert_eq!(merged.body["enabled_panels"], json!(["notes"]));

    let defaults = patch(
        &app,
        &id,
        json!({"agent_metadata": null, "modality_profile": null, "enabled_panels": null,
               "max_duration_seconds": null, "token_ttl_seconds": null, "on_agent_hangup": null}),
    )
    .await;
    for (field, value) in [
        ("agent_metadata", json!({})),
        ("modality_profile", Value::Null),
        ("enabled_panels", Value::Null),
        ("max_duration_seconds", json!(7200)),
        ("token_ttl_seconds", Value::Null),
        ("on_agent_hangup", json!("keep")),
        ("agent_name", json!("greeter")),
        ("version", json!(4)),
    ] {
        assert_eq!(defaults.body[field], value, "{field}");
    }
}

#[tokio::test]
async fn removing_agent_resets_agent_required() {
    let app = App::start().await;
    let id = app.create_template(json!({"agent_name": "greeter"})).await;
    let changed = patch(&app, &id, json!({"agent_name": null})).await;
    assert_eq!(
        (&changed.body["agent_name"], &changed.body["agent_required"]),
        (&Value::Null, &json!(false))
    );
    let refused = patch(&app, &id, json!({"agent_required": true})).await;
    refused.assert_problem(400, "invalid_request");
    assert_eq!(refused.fields(), ["agent_required"]);
    let kept = patch(&app, &id, json!({"agent_name": "greeter"})).await;
    assert_eq!(kept.body["agent_required"], false, "an absent field stays");
    let default = patch(&app, &id, json!({"agent_required": null})).await;
    assert_eq!(default.body["agent_required"], true, "the default of a template with an agent");
}

#[tokio::test]
async fn invalid_patch_is_refused_and_changes_nothing() {
    let app = App::start().await;
    let id = app.create_template(json!({"name": "Mine"})).await;
    app.create_template(json!({"name": "Taken"})).await;
    let before = app.get(&format!("{TEMPLATES}/{id}")).await.body;
    for (body, field) in [
        (json!({"nmae": "x"}), "nmae"),
        (json!({"nmae": null}), "nmae"),
        (json!({"name": null}), "name"),
        (json!({"name": 7}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"enabled_panels": ["a", null]}), "enabled_panels[1]"),
        (json!({"enabled_panels": ["a", "b c"]}), "enabled_panels[1]"),
        (json!({"join_window_seconds": 29}), "join_window_seconds"),
        (json!({"join_window_seconds": "600"}), "join_window_seconds"),
        (json!({"agent_metadata": []}), "agent_metadata"),
        (json!({"agent_metadata": {"k": "x".repeat(4096)}}), "agent_metadata"),
        (json!({"version": 7}), "version"),
        (json!({"id": null}), "id"),
    ] {
        let refused = patch(&app, &id, body).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), [field], "{}", refused.body);
    }
    patch(&app, &id, json!({"name": "tAKEN"})).await.assert_problem(409, "template_name_taken");
    patch(&app, &uuid().to_string(), json!({})).await.assert_problem(404, "template_not_found");
    patch(&app, "42", json!({})).await.assert_problem(400, "invalid_request");
    let empty = patch(&app, &id, json!({})).await;
    assert_eq!((empty.status, &empty.body), (200, &before), "no new version");
    let merge = app.request(Method::PATCH, &format!("{TEMPLATES}/{id}"));
    let merge =
        merge.header("content-type", "application/merge-patch+json").body("{\"name\": \"New\"}");
    assert_eq!(answer(merge).await.body["version"], 2);
}

#[tokio::test]
async fn concurrent_patches_are_both_applied() {
    let app = App::start().await;
    let id = app.create_template(json!({})).await;
    let (one, other) = tokio::join!(
        patch(&app, &id, json!({"max_duration_seconds": 61})),
        patch(&app, &id, json!({"join_window_seconds": 31})),
    );
    assert_eq!((one.status, other.status), (200, 200));
    let patched = app.get(&format!("{TEMPLATES}/{id}")).await.body;
    let field = |name: &str| patched[name].as_i64().unwrap();
    assert_eq!(
        (field("version"), field("max_duration_seconds"), field("join_window_seconds")),
        (3, 61, 31)
    );
}

#[tokio::test]
async fn running_session_keeps_its_template_version() {
    let app = App::start().await;
    let id =
        app.create_template(json!({"room_creation": "on_join", "modality_profile": "audio"})).await;
    let running = app.start_session(&id, json!({})).await.header("location").to_owned();
    patch(&app, &id, json!({"modality_profile": "camera"})).await;
    let fresh = app.start_session(&id, json!({})).await.header("location").to_owned();
    assert_eq!(app.get(&running).await.body["modality_profile"], "audio");
    assert_eq!(app.get(&fresh).await.body["modality_profile"], "camera");
}

#[tokio::test]
async fn archived_template_can_be_read_but_not_started() {
    let app = App::start().await;
    let id = app.create_template(json!({"name": "Gone", "room_creation": "on_join"})).await;
    let path = format!("{TEMPLATES}/{id}");
    let archive = async || answer(app.request(Method::DELETE, &path)).await;
    let archived = archive().await;
    assert_eq!((archived.status, &archived.body), (204, &json!("")));
    assert_eq!(archive().await.status, 204, "archiving again succeeds");
    let read = app.get(&path).await;
    assert!(read.status == 200 && read.body["archived_at"].is_string(), "{}", read.body);
    app.start_session(&id, json!({})).await.assert_problem(404, "template_not_found");
    patch(&app, &id, json!({"name": "Back"})).await.assert_problem(404, "template_not_found");
    assert_eq!(app.get(TEMPLATES).await.body, json!([]));
    assert_eq!(
        app.get(&format!("{TEMPLATES}?include_archived=true")).await.body,
        json!([read.body])
    );
    assert_eq!(
        app.post(TEMPLATES, &json!({"name": "gone"})).await.status,
        201,
        "the name is free again"
    );
    let unknown = app.request(Method::DELETE, &format!("{TEMPLATES}/{}", uuid()));
    answer(unknown).await.assert_problem(404, "template_not_found");
}

#[tokio::test]
async fn link_returns_rest_of_list() {
    let app = App::start().await;
    for number in 0..3 {
        app.create_template(json!({"name": format!("T{number}")})).await;
    }
    let names = |answer: &Answer| {
        let all = answer.body.as_array().unwrap().iter();
        all.map(|template| template["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = app.get(&format!("{TEMPLATES}?limit=2&include_archived=true")).await;
    let link =
        first.header("link").strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    assert!(link.contains("include_archived=true"), "{link}");
    let rest = app.get(&link).await;
    assert_eq!((names(&first), names(&rest)), (vec!["T2".into(), "T1".into()], vec!["T0".into()]));
    assert_eq!(rest.header("link"), "");
    for (query, fields) in [("limit=0", ["limit"]), ("include_archived=yes", ["include_archived"])]
    {
        let refused = app.get(&format!("{TEMPLATES}?{query}")).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), fields);
    }
    app.get(&format!("{TEMPLATES}?cursor=x")).await.assert_problem(400, "invalid_cursor");
}
