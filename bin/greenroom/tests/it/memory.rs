//! How much memory the program keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::app::App;

const STARTS: usize = 100_000;
const ROOMS: usize = 480;
const CONNECTIONS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_starts_leave_less_than_20_megabytes() {
    let app = Arc::new(App::with(&[("GREENROOM_LOG", "info")]).await);
    // LiveKit keeps some hundred kilobytes a room, so only some of them are opened.
    let on_start =
        app.template(json!({"agent_name": "nobody-here", "join_window_seconds": 30})).await;
    for _ in 0..ROOMS / CONNECTIONS {
        let starts = (0..CONNECTIONS).map(|_| app.start_session(&on_start, json!({})));
        let started = futures_util::future::join_all(starts).await;
        assert!(started.iter().all(|answer| answer.status == 201));
    }
    let template = app.template(json!({"room_creation": "on_join"})).await;
    let left = Arc::new(AtomicUsize::new(STARTS));
    let starters = (0..CONNECTIONS).map(|_| {
        let (app, template, left) = (app.clone(), template.clone(), left.clone());
        tokio::spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                assert_eq!(app.start_session(&template, json!({})).await.status, 201);
            }
        })
    });
    for starter in starters.collect::<Vec<_>>() {
        starter.await.unwrap();
    }
    let kilobytes = app.resident();
    assert!(kilobytes < 20 * 1024, "{kilobytes} kB are resident");
}
