//! Authorization: a table of every route and the callers that may use it, compared with the API.

use greenroom_testkit::caller;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::app::{AUTH_SECRET, Answer, App, answer, uuid};

/// An operation of the API, and the callers that may use it.
struct Route {
    /// Its `operationId` in the OpenAPI document.
    operation: &'static str,
    /// The scope that it requires.
    scope: &'static str,
    /// Whether end users may call the route.
    end_users: bool,
    /// The result if the request names a resource of this organization, but the caller is a backend
    /// of another organization.
    from_other_organization: Outcome,
}

/// The result of a request by a backend of another organization.
enum Outcome {
    /// A problem with this status and code.
    Refused(u16, &'static str),
    /// An empty list.
    EmptyList,
    /// A new resource in the caller's own organization.
    Created,
    /// This number of open sessions in the caller's own organization.
    ActiveSessions(u64),
}

/// A row for every operation that needs a caller's token. A test fails if an operation has no row.
const ROUTES: &[Route] = &[
    Route {
        operation: "start_session",
        scope: "sessions:start",
        end_users: true,
        from_other_organization: Outcome::Refused(403, "template_forbidden"),
    },
    Route {
        operation: "get_session",
        scope: "sessions:read",
        end_users: true,
        from_other_organization: Outcome::Refused(404, "session_not_found"),
    },
    Route {
        operation: "refresh_session_token",
        scope: "sessions:start",
        end_users: true,
        from_other_organization: Outcome::Refused(404, "session_not_found"),
    },
    Route {
        operation: "end_session",
        scope: "sessions:end",
        end_users: true,
        from_other_organization: Outcome::Refused(404, "session_not_found"),
    },
    Route {
        operation: "get_session_timeline",
        scope: "sessions:read",
        end_users: true,
        from_other_organization: Outcome::Refused(404, "session_not_found"),
    },
    Route {
        operation: "list_sessions",
        scope: "sessions:read",
        end_users: true,
        from_other_organization: Outcome::EmptyList,
    },
    Route {
        operation: "create_session_template",
        scope: "templates:write",
        end_users: false,
        from_other_organization: Outcome::Created,
    },
    Route {
        operation: "get_session_template",
        scope: "templates:read",
        end_users: false,
        from_other_organization: Outcome::Refused(404, "template_not_found"),
    },
    Route {
        operation: "list_session_templates",
        scope: "templates:read",
        end_users: false,
        from_other_organization: Outcome::EmptyList,
    },
    Route {
        operation: "update_session_template",
        scope: "templates:write",
        end_users: false,
        from_other_organization: Outcome::Refused(404, "template_not_found"),
    },
    Route {
        operation: "archive_session_template",
        scope: "templates:write",
        end_users: false,
        from_other_organization: Outcome::Refused(404, "template_not_found"),
    },
    Route {
        operation: "get_limits",
        scope: "limits:read",
        end_users: false,
        from_other_organization: Outcome::ActiveSessions(0),
    },
];

/// Every scope of the API.
const SCOPES: [&str; 6] = [
    "sessions:start",
    "sessions:read",
    "sessions:end",
    "templates:read",
    "templates:write",
    "limits:read",
];

/// An operation of the OpenAPI document, and its row in the table.
struct Operation {
    method: Method,
    path: String,
    route: &'static Route,
}

/// Returns every operation of the OpenAPI document that needs a caller's token, with its row.
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
                route: route.unwrap_or_else(|| panic!("ROUTES has no row for {id}")),
            });
        }
    }
    assert_eq!(operations.len(), ROUTES.len(), "a row of ROUTES has no operation");
    operations
}

impl Operation {
    /// Returns a valid request for a new resource of the app's organization, without a token.
    async fn request(&self, app: &App) -> RequestBuilder {
        let template = app.create_template(json!({"room_creation": "on_join"})).await;
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

    /// Sends the request with a token of the app's organization. `claims` are added to the token, or
    /// replace its claims.
    async fn answer_to(&self, app: &App, claims: Value) -> Answer {
        let mut all_claims =
            json!({"org_id": app.organization, "exp": caller::seconds_from_now(60)});
        all_claims.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let token = caller::token(AUTH_SECRET, &all_claims);
        answer(self.request(app).await.bearer_auth(token)).await
    }
}

#[tokio::test]
async fn every_route_permits_exactly_its_listed_callers() {
    let app = App::start().await;
    for operation in operations(&app).await {
        let Route { operation: id, scope, end_users, .. } = operation.route;
        let other_scopes = SCOPES.into_iter().filter(|other| other != scope).collect::<Vec<_>>();
        for (caller, claims, refused) in [
            ("a backend", json!({}), None),
            ("its scope", json!({"scope": scope}), None),
            ("its scope among others", json!({"scope": format!("openid {scope} a:b")}), None),
            ("an empty scope", json!({"scope": ""}), Some("scope_missing")),
            ("every other scope", json!({"scope": other_scopes.join(" ")}), Some("scope_missing")),
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
                    "{id}, {caller}: {} {}",
                    answered.status,
                    answered.body
                ),
            }
        }
    }
}

#[tokio::test]
async fn backend_cannot_reach_another_organization() {
    let app = App::start().await;
    for operation in operations(&app).await {
        let id = operation.route.operation;
        let answered = operation.answer_to(&app, json!({"org_id": uuid()})).await;
        match operation.route.from_other_organization {
            Outcome::Refused(status, code) => answered.assert_problem(status, code),
            Outcome::EmptyList => assert_eq!(answered.body, json!([]), "{id}"),
            Outcome::Created => assert_eq!(answered.status, 201, "{id}"),
            Outcome::ActiveSessions(sessions) => {
                assert_eq!(answered.body["active_sessions"], sessions, "{id}");
            }
        }
    }
}

#[tokio::test]
async fn unauthenticated_request_is_refused_before_validation() {
    let app = App::start().await;
    for operation in operations(&app).await {
        // The path and the body are invalid as well, but 401 comes before 400.
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
        let two_headers = request().bearer_auth(app.token()).bearer_auth(app.token());
        answer(two_headers).await.assert_problem(401, "unauthenticated");
        // Without the scope of the route, 403 comes before 400.
        let claims =
            json!({"org_id": app.organization, "exp": caller::seconds_from_now(60), "scope": ""});
        let token = caller::token(AUTH_SECRET, &claims);
        answer(request().bearer_auth(token)).await.assert_problem(403, "scope_missing");
    }
}

#[tokio::test]
async fn unusual_path_spelling_does_not_bypass_authentication() {
    let app = App::start().await;
    for path in ["/%61pi/v1/sessions", "//api/v1/sessions", "/api/v1/../v1/sessions", "/api/v1/x"] {
        // reqwest would normalize the path.
        let answered = app.send_raw(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        let status = answered.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "401" | "404"), "{path}: {answered}");
    }
}

#[tokio::test]
async fn end_user_sees_and_starts_only_own_sessions() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let started =
        app.start_session(&template, json!({"user_id": "ann", "metadata": {"a": 1}})).await;
    let session_of_ann = started.header("location").to_owned();
    let get = async |path: &str, user: &str| app.request_as(user, Method::GET, path).await;
    let start = async |body: Value, user: &str| {
        let request = app.client.post(format!("{}/api/v1/sessions/start", app.address));
        answer(request.bearer_auth(app.user_token(user)).json(&body)).await
    };
    let seen = get(&session_of_ann, "ann").await;
    assert_eq!((seen.status, &seen.body["metadata"]), (200, &Value::Null));
    let seen_by_backend = app.get(&session_of_ann).await;
    assert_eq!(seen_by_backend.body["metadata"], json!({"a": 1}));
    get(&session_of_ann, "ben").await.assert_problem(404, "session_not_found");

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
async fn token_times_have_thirty_seconds_of_leeway() {
    let app = App::start().await;
    for (exp, nbf, status) in [(-20, 20, 200), (-40, 0, 401), (60, 45, 401)] {
        let claims = json!({"org_id": uuid(), "exp": caller::seconds_from_now(exp), "nbf": caller::seconds_from_now(nbf)});
        let token = caller::token(AUTH_SECRET, &claims);
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let request = app.client.get(format!("{}/api/v1/sessions", app.address));
            let request = request.header("authorization", format!("{scheme} {token}"));
            assert_eq!(answer(request).await.status, status, "{exp} {nbf}");
        }
    }
}
