//! Who may do what: a table of every route over every kind of caller.

use greenroom_testkit::caller;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::app::{AUTH_SECRET, Answer, App, answer, uuid};

/// A route of the API, and what it takes to call it.
struct Route {
    operation: &'static str,
    scope: &'static str,
    end_users: bool,
    /// What a backend of another organization gets for what is not its own.
    stranger: Stranger,
}

enum Stranger {
    /// A failure with this status and code.
    Refused(u16, &'static str),
    /// An empty list.
    SeesNothing,
    /// It makes something of its own.
    Unrelated,
    /// So many sessions of its own.
    Counts(u64),
}

const ROUTES: &[Route] = &[
    Route {
        operation: "start_session",
        scope: "sessions:start",
        end_users: true,
        stranger: Stranger::Refused(403, "template_forbidden"),
    },
    Route {
        operation: "get_session",
        scope: "sessions:read",
        end_users: true,
        stranger: Stranger::Refused(404, "session_not_found"),
    },
    Route {
        operation: "refresh_session_token",
        scope: "sessions:start",
        end_users: true,
        stranger: Stranger::Refused(404, "session_not_found"),
    },
    Route {
        operation: "end_session",
        scope: "sessions:end",
        end_users: true,
        stranger: Stranger::Refused(404, "session_not_found"),
    },
    Route {
        operation: "get_session_timeline",
        scope: "sessions:read",
        end_users: true,
        stranger: Stranger::Refused(404, "session_not_found"),
    },
    Route {
        operation: "list_sessions",
        scope: "sessions:read",
        end_users: true,
        stranger: Stranger::SeesNothing,
    },
    Route {
        operation: "create_session_template",
        scope: "templates:write",
        end_users: false,
        stranger: Stranger::Unrelated,
    },
    Route {
        operation: "get_session_template",
        scope: "templates:read",
        end_users: false,
        stranger: Stranger::Refused(404, "template_not_found"),
    },
    Route {
        operation: "list_session_templates",
        scope: "templates:read",
        end_users: false,
        stranger: Stranger::SeesNothing,
    },
    Route {
        operation: "update_session_template",
        scope: "templates:write",
        end_users: false,
        stranger: Stranger::Refused(404, "template_not_found"),
    },
    Route {
        operation: "archive_session_template",
        scope: "templates:write",
        end_users: false,
        stranger: Stranger::Refused(404, "template_not_found"),
    },
    Route {
        operation: "get_limits",
        scope: "limits:read",
        end_users: false,
        stranger: Stranger::Counts(0),
    },
];

/// All that scopes there are.
const SCOPES: [&str; 6] = [
    "sessions:start",
    "sessions:read",
    "sessions:end",
    "templates:read",
    "templates:write",
    "limits:read",
];

/// An operation of the document with its row of the table.
struct Operation {
    method: Method,
    path: String,
    route: &'static Route,
}

/// Every operation of the OpenAPI document.
async fn operations(app: &App) -> Vec<Operation> {
    let document = answer(app.client.get(format!("{}/openapi.json", app.address))).await.body;
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"] == json!([]) {
                continue;
            }
            let id = operation["operationId"].as_str().unwrap();
            let route = ROUTES.iter().find(|route| route.operation == id);
            operations.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                route: route.unwrap_or_else(|| panic!("{id} has no row: who may call it?")),
            });
        }
    }
    assert_eq!(operations.len(), ROUTES.len(), "a row has no route");
    operations
}

impl Operation {
    /// A request that is right for somebody who may make it, on what the app's organization has.
    async fn request(&self, app: &App) -> RequestBuilder {
        let template = app.template(json!({"room_creation": "on_join"})).await;
        let session = app.start_session(&template, json!({"user_id": "ann"})).await.body;
        let session = session["session_id"].as_str().unwrap().to_owned();
        let path =
            self.path.replace("{session_id}", &session).replace("{session_template_id}", &template);
        let request = app.client.request(self.method.clone(), format!("{}{path}", app.address));
        match self.route.operation {
            "start_session" => request.json(&json!({"session_template_id": template})),
            "create_session_template" => request.json(&json!({"name": uuid()})),
            "update_session_template" => request.json(&json!({"max_duration_seconds": 60})),
            _ => request,
        }
    }

    async fn answer_to(&self, app: &App, claims: Value) -> Answer {
        let mut all = json!({"org_id": app.organization, "exp": caller::in_seconds(60)});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let token = caller::token(AUTH_SECRET, &all);
        answer(self.request(app).await.bearer_auth(token)).await
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_its_row_names_and_nobody_else() {
    let app = App::start().await;
    for operation in operations(&app).await {
        let Route { operation: id, scope, end_users, .. } = operation.route;
        let others = SCOPES.into_iter().filter(|other| other != scope).collect::<Vec<_>>();
        for (what, claims, refused) in [
            ("a backend", json!({}), None),
            ("its scope", json!({"scope": scope}), None),
            ("its scope among others", json!({"scope": format!("openid {scope} a:b")}), None),
            ("an empty scope", json!({"scope": ""}), Some("scope_missing")),
            ("every other scope", json!({"scope": others.join(" ")}), Some("scope_missing")),
            ("an end user", json!({"user_id": "ann"}), (!end_users).then_some("user_forbidden")),
            (
                "an end user with the scope",
                json!({"user_id": "ann", "scope": scope}),
                (!end_users).then_some("user_forbidden"),
            ),
            (
                "an end user without the scope",
                json!({"user_id": "ann", "scope": "openid"}),
                Some("scope_missing"),
            ),
        ] {
            let answered = operation.answer_to(&app, claims).await;
            match refused {
                Some(code) => answered.assert_problem(403, code),
                None => assert!(
                    (200..300).contains(&answered.status),
                    "{id}, {what}: {} {}",
                    answered.status,
                    answered.body
                ),
            }
        }
    }
}

#[tokio::test]
async fn no_route_reaches_into_another_organization() {
    let app = App::start().await;
    for operation in operations(&app).await {
        let id = operation.route.operation;
        let answered = operation.answer_to(&app, json!({"org_id": uuid()})).await;
        match operation.route.stranger {
            Stranger::Refused(status, code) => answered.assert_problem(status, code),
            Stranger::SeesNothing => assert_eq!(answered.body, json!([]), "{id}"),
            Stranger::Unrelated => assert_eq!(answered.status, 201, "{id}"),
            Stranger::Counts(sessions) => {
                assert_eq!(answered.body["active_sessions"], sessions, "{id}");
            }
        }
    }
}

#[tokio::test]
async fn who_is_not_known_learns_nothing_else() {
    let app = App::start().await;
    for operation in operations(&app).await {
        // A wrong body and a wrong path, too: who is not known learns nothing about shapes.
        let path =
            operation.path.replace("{session_id}", "x").replace("{session_template_id}", "x");
        let url = format!("{}{path}?limit=x", app.address);
        let request = || app.client.request(operation.method.clone(), &url).body("{");
        for authorization in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic YTpi")] {
            let request = match authorization {
                Some(text) => request().header("authorization", text),
                None => request(),
            };
            let refused = answer(request).await;
            refused.assert_problem(401, "unauthenticated");
            assert_eq!(refused.header("www-authenticate"), "Bearer");
        }
        let two = request().bearer_auth(app.token()).bearer_auth(app.token());
        answer(two).await.assert_problem(401, "unauthenticated");
        // The same with a scope that is not the route's: 403 comes before 400.
        let claims =
            json!({"org_id": app.organization, "exp": caller::in_seconds(60), "scope": ""});
        let token = caller::token(AUTH_SECRET, &claims);
        answer(request().bearer_auth(token)).await.assert_problem(403, "scope_missing");
    }
}

#[tokio::test]
async fn a_path_that_is_written_otherwise_needs_a_token_too() {
    let app = App::start().await;
    for path in ["/%61pi/v1/sessions", "//api/v1/sessions", "/api/v1/../v1/sessions", "/api/v1/x"] {
        // reqwest would tidy the path up first.
        let answered = app.raw(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        let status = answered.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "401" | "404"), "{path}: {answered}");
    }
}

#[tokio::test]
async fn an_end_user_sees_and_starts_its_own_sessions_alone() {
    let app = App::start().await;
    let template = app.template(json!({"room_creation": "on_join"})).await;
    let anns = app.start_session(&template, json!({"user_id": "ann", "metadata": {"a": 1}})).await;
    let anns = anns.header("location").to_owned();
    let get = async |path: &str, user: &str| app.ask_as(user, Method::GET, path).await;
    let start = async |body: Value, user: &str| {
        let request = app.client.post(format!("{}/api/v1/sessions/start", app.address));
        answer(request.bearer_auth(app.user_token(user)).json(&body)).await
    };
    let seen = get(&anns, "ann").await;
    assert_eq!((seen.status, &seen.body["metadata"]), (200, &Value::Null));
    assert_eq!(app.get(&anns).await.body["metadata"], json!({"a": 1}), "the control");
    get(&anns, "ben").await.assert_problem(404, "session_not_found");

    let own = start(json!({"session_template_id": template}), "ben").await;
    assert_eq!((own.status, &own.body["participant_identity"]), (201, &json!("ben")));
    assert_eq!(get("/api/v1/sessions", "ben").await.body.as_array().unwrap().len(), 1);
    assert_eq!(get("/api/v1/sessions?user_id=ben", "ben").await.status, 200);
    get("/api/v1/sessions?user_id=ann", "ben").await.assert_problem(403, "user_forbidden");
    for body in [json!({"user_id": "ann"}), json!({"metadata": {}})] {
        let mut request = json!({"session_template_id": template});
        request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        start(request, "ben").await.assert_problem(403, "user_forbidden");
    }
    let named = json!({"session_template_id": template, "user_id": "ben"});
    assert_eq!(start(named, "ben").await.status, 201);
}

#[tokio::test]
async fn thirty_seconds_of_leeway_are_given() {
    let app = App::start().await;
    for (exp, nbf, status) in [(-20, 20, 200), (-40, 0, 401), (60, 45, 401)] {
        let claims = json!({"org_id": uuid(), "exp": caller::in_seconds(exp), "nbf": caller::in_seconds(nbf)});
        let token = caller::token(AUTH_SECRET, &claims);
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let request = app.client.get(format!("{}/api/v1/sessions", app.address));
            let request = request.header("authorization", format!("{scheme} {token}"));
            assert_eq!(answer(request).await.status, status, "{exp} {nbf}");
        }
    }
}
