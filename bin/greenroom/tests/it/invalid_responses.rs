//! Invalid responses of LiveKit to the keeper: they change no session.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom_testkit::wait_until;
use serde_json::json;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

use crate::app::App;

/// A protobuf field with a message or a text shorter than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    [&[number << 3 | 2, length], bytes].concat()
}

/// A LiveKit whose rooms all exist and contain the user ann, except for the calls that a test
/// changes.
#[derive(Clone, Default)]
struct ScriptedLiveKit {
    /// The end of a method's name, and the response to it.
    changed: Arc<Mutex<Option<(&'static str, ResponseTemplate)>>>,
}

impl ScriptedLiveKit {
    async fn start(&self) -> MockServer {
        let server = MockServer::start().await;
        let script = self.clone();
        let respond = move |request: &wiremock::Request| script.respond(request);
        Mock::given(matchers::any()).respond_with(respond).mount(&server).await;
        server
    }

    fn restore(&self) {
        *self.changed.lock().unwrap() = None;
    }

    fn change(&self, method: &'static str, response: ResponseTemplate) {
        *self.changed.lock().unwrap() = Some((method, response));
    }

    fn respond(&self, request: &wiremock::Request) -> ResponseTemplate {
        let path = request.url.path();
        if let Some((method, response)) = &*self.changed.lock().unwrap()
            && path.ends_with(method)
        {
            return response.clone();
        }
        let name = || request.body[2..usize::from(request.body[1]) + 2].to_vec();
        let room = || [field(1, b"RM_scripted"), field(2, &name())].concat();
        let ann = || [field(1, b"PA_ann"), field(2, b"ann"), vec![3 << 3, 2]].concat();
        let body = match path.rsplit('/').next().unwrap() {
            "CreateRoom" => room(),
            // Lists also a room that was not asked for.
            "ListRooms" => {
                let foreign = b"session_20200101_000000_abcdef";
                [field(1, &room()), field(1, &field(2, foreign))].concat()
            }
            "ListParticipants" => field(1, &ann()),
            _ => Vec::new(),
        };
        protobuf(body)
    }
}

fn protobuf(body: Vec<u8>) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body, "application/protobuf")
}

#[tokio::test]
async fn invalid_responses_of_livekit_change_no_session() {
    let script = ScriptedLiveKit::default();
    let livekit = script.start().await;
    let changed =
        [("LIVEKIT_API_URL", livekit.uri()), ("GREENROOM_RECONCILE_SECONDS", "1".to_owned())];
    let app = App::with(&changed.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    let template = app.create_template(json!({"reconnect_window_seconds": 5})).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let before = app.wait_for_status(&session, "active", Duration::from_secs(20)).await;
    let events = app.events(&session).await;

    let html = || ResponseTemplate::new(200).set_body_raw("<html>Welcome</html>", "text/html");
    let too_large = || protobuf(vec![0; 9 << 20]);
    let slow = || protobuf(Vec::new()).set_delay(Duration::from_secs(30));
    let garbage = || protobuf(b"\xff\xff".to_vec());
    for (method, response, message, cause) in [
        ("ListRooms", html(), "failed to list rooms", "ListRooms is not a valid protobuf"),
        ("ListRooms", garbage(), "failed to list rooms", "ListRooms is not a valid protobuf"),
        ("ListRooms", slow(), "failed to list rooms", "did not respond in time"),
        ("ListRooms", too_large(), "failed to observe room", "larger than 8 MiB"),
        ("ListParticipants", html(), "failed to observe room", "not a valid protobuf"),
        ("ListParticipants", garbage(), "failed to observe room", "not a valid protobuf"),
        ("ListParticipants", slow(), "failed to observe room", "did not respond in time"),
        ("ListParticipants", too_large(), "failed to observe room", "larger than 8 MiB"),
        ("ListDispatch", too_large(), "failed to observe room", "larger than 8 MiB"),
    ] {
        let seen = app.process.output().len();
        let wait_for_line = async |texts: [&str; 2]| {
            wait_until(&format!("{method}: {texts:?}"), Duration::from_secs(20), async || {
                let log = app.process.output()[seen..].to_owned();
                let contains_all = |line: &str| texts.iter().all(|text| line.contains(text));
                Ok(log.lines().any(contains_all).then_some(()))
            })
            .await
            .unwrap();
        };
        script.change(method, response);
        wait_for_line([message, cause]).await;
        assert_eq!(app.get(&session).await.body, before, "{method}: {cause}");
        assert_eq!(app.events(&session).await, events, "{method}: {cause}");
        script.restore();
        if message == "failed to list rooms" {
            wait_for_line(["recovered from LiveKit outage", ""]).await;
        }
    }
    // A valid response without the user is believed.
    script.change("ListParticipants", protobuf(Vec::new()));
    wait_until("the departure to be observed", Duration::from_secs(10), async || {
        Ok(app.events(&session).await.iter().any(|event| event == "user_left").then_some(()))
    })
    .await
    .unwrap();
}
