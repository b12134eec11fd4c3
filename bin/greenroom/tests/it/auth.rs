//! Who may call: a table of callers over every route.

use greenroom_testkit::caller;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{AUTH_SECRET, Answer, App, answer, uuid};

/// Every operation of the OpenAPI document, with ids in its path.
async fn operations(app: &App) -> Vec<(Method, String)> {
    let document = answer(app.client.get(format!("{}/openapi.json", app.address))).await.body;
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path
            .split('/')
            .map(|part| if part.starts_with('{') { uuid().to_string() } else { part.to_owned() });
        let path = path.collect::<Vec<_>>().join("/");
        let methods = methods.as_object().unwrap().keys();
        operations
            .extend(methods.map(|method| (method.to_uppercase().parse().unwrap(), path.clone())));
    }
    operations
}

async fn call(app: &App, (method, path): &(Method, String), authorization: Option<&str>) -> Answer {
    let mut request = app.client.request(method.clone(), format!("{}{path}", app.address));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    // A wrong body too: who is not known learns nothing about shapes.
    answer(if *method == Method::GET { request } else { request.body("{") }).await
}

#[tokio::test]
async fn nobody_gets_in_without_a_valid_token() {
    let app = App::start().await;
    let operations = operations(&app).await;
    assert_eq!(operations.len(), 6, "a route was added: does it ask who calls?");
    let organization = uuid().to_string();
    let claims = |exp: i64| json!({"org_id": organization, "exp": caller::in_seconds(exp)});
    let signed = |claims: &Value| caller::token(AUTH_SECRET, claims);
    let (head, rest) =
        signed(&claims(60)).split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let none = format!("eyJhbGciOiJub25lIn0.{}.", rest.split('.').next().unwrap());
    let tokens = [
        String::new(),
        "x".to_owned(),
        none,
        format!("{head}.{rest}x"),
        caller::token("another secret of thirty-two bytes!!", &claims(60)),
        signed(&claims(-31)),
        signed(&json!({"org_id": organization})),
        signed(&json!({"exp": caller::in_seconds(60)})),
        signed(&json!({"org_id": "42", "exp": caller::in_seconds(60)})),
        signed(&json!({"org_id": 42, "exp": caller::in_seconds(60)})),
        signed(
            &json!({"org_id": organization, "exp": caller::in_seconds(60), "nbf": caller::in_seconds(31 + 5)}),
        ),
        "y".repeat(4096),
    ];
    for operation in &operations {
        call(&app, operation, None).await.assert_problem(401, "unauthenticated");
        call(&app, operation, Some("Basic YTpi")).await.assert_problem(401, "unauthenticated");
        for token in &tokens {
            let refused = call(&app, operation, Some(&format!("Bearer {token}"))).await;
            refused.assert_problem(401, "unauthenticated");
            assert_eq!(refused.header("www-authenticate"), "Bearer");
        }
    }
    let log = app.process.output();
    assert!(log.contains("a caller was not authenticated"));
    assert!(!log.contains(&rest), "the log has a token");
}

#[tokio::test]
async fn end_users_and_scopes_are_refused_until_they_mean_something() {
    let app = App::start().await;
    for operation in &operations(&app).await {
        for (claim, value, code) in [
            ("user_id", json!("ann"), "user_forbidden"),
            ("user_id", json!(""), "user_forbidden"),
            ("user_id", Value::Null, "user_forbidden"),
            ("scope", json!("sessions:start"), "scope_missing"),
            ("scope", json!(""), "scope_missing"),
            ("scope", Value::Null, "scope_missing"),
        ] {
            let claims = json!({"org_id": uuid(), "exp": caller::in_seconds(60), claim: value});
            let token = caller::token(AUTH_SECRET, &claims);
            call(&app, operation, Some(&format!("Bearer {token}"))).await.assert_problem(403, code);
        }
    }
}

#[tokio::test]
async fn thirty_seconds_of_leeway_are_given() {
    let app = App::start().await;
    let token = caller::token(
        AUTH_SECRET,
        &json!({"org_id": uuid(), "exp": caller::in_seconds(-20), "nbf": caller::in_seconds(20)}),
    );
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let operation = (Method::GET, "/api/v1/sessions".to_owned());
        assert_eq!(call(&app, &operation, Some(&format!("{scheme} {token}"))).await.status, 200);
    }
}
