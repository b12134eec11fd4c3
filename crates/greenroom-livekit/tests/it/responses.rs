//! Responses that a LiveKit server does not send: of the wrong kind, too slow, too large, or about
//! other rooms. A scripted server sends them.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use greenroom_domain::RoomName;
use greenroom_livekit::{AgentDispatch, KeyPair, LiveKitConfig, LiveKitError, LiveKitRooms, Rooms};
use greenroom_testkit::endless_server;
use greenroom_testkit::livekit::{ScriptedApi, Server};
use livekit_api::services::room::{CreateRoomOptions, RoomClient};
use livekit_protocol::{ListRoomsRequest, ListRoomsResponse, Room};
use prost::Message;
use tokio::time::timeout;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers};

use crate::rooms::{room, rooms, settings};

const PROTOBUF: &str = "application/protobuf";

/// LiveKit accepts at most this much metadata per room by default, in bytes.
const MAX_METADATA: usize = 64_000;

fn client(url: &str) -> LiveKitRooms {
    let secret = "a secret of at least thirty-two bytes".parse().unwrap();
    let key = KeyPair::new("key".parse().unwrap(), secret);
    LiveKitRooms::new(&LiveKitConfig::new(url.parse().unwrap(), key)).unwrap()
}

/// Sends one request of each kind, and returns the errors.
async fn errors(rooms: &LiveKitRooms) -> Vec<LiveKitError> {
    let room = room();
    let opened = settings(AgentDispatch::unserved());
    let (create, list, participants, dispatches, check) = tokio::join!(
        rooms.create(&room, &opened),
        rooms.list(std::slice::from_ref(&room)),
        rooms.participants(&room),
        rooms.dispatches(&room, None),
        rooms.check(),
    );
    let list = list.and_then(|listed| listed.into_values().collect::<Result<Vec<_>, _>>());
    [
        create.map(drop).unwrap_err(),
        list.map(drop).unwrap_err(),
        participants.map(drop).unwrap_err(),
        dispatches.map(drop).unwrap_err(),
        check.unwrap_err(),
    ]
    .into()
}

/// Returns the errors of requests to a server that responds with `head`, and then with one byte per
/// second. Asserts that they fail within `limit`.
async fn errors_of_slow_response(head: &'static [u8], limit: Duration) -> Vec<LiveKitError> {
    let (url, _) = endless_server(head, b"\n", Duration::from_secs(1)).await.unwrap();
    let begun = Instant::now();
    let errors = errors(&client(&url)).await;
    assert!(begun.elapsed() < limit, "it took {:?}", begun.elapsed());
    errors
}

/// Starts a server that lists the rooms that this function makes of a name.
async fn room_server(
    make: impl Fn(String) -> Vec<Room> + Send + Sync + 'static,
) -> (MockServer, LiveKitRooms) {
    let server = MockServer::start().await;
    let respond = move |request: &Request| {
        let request = ListRoomsRequest::decode(request.body.as_slice()).unwrap();
        let rooms = request.names.into_iter().flat_map(&make).collect();
        let body = ListRoomsResponse { rooms }.encode_to_vec();
        ResponseTemplate::new(200).set_body_raw(body, PROTOBUF)
    };
    let path = matchers::path("/twirp/livekit.RoomService/ListRooms");
    Mock::given(path).respond_with(respond).mount(&server).await;
    let rooms = client(&server.uri());
    (server, rooms)
}

fn with_metadata(name: String, bytes: usize) -> Room {
    Room { sid: format!("RM_{name}"), name, metadata: "m".repeat(bytes), ..Room::default() }
}

#[tokio::test]
async fn page_of_html_is_refused() {
    let server = MockServer::start().await;
    let page = ResponseTemplate::new(200).set_body_raw("<html>Welcome</html>", "text/html");
    Mock::given(matchers::any()).respond_with(page).mount(&server).await;
    for error in errors(&client(&server.uri())).await {
        assert!(matches!(error, LiveKitError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains("is not a valid protobuf message"), "{error}");
    }
}

#[tokio::test]
async fn response_of_one_byte_per_second_times_out() {
    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\ncontent-length: 90\r\n\r\n";
    for error in errors_of_slow_response(HEAD, Duration::from_millis(4_500)).await {
        assert!(matches!(error, LiveKitError::Timeout), "{error:?}");
    }
}

#[tokio::test]
async fn reading_stops_at_8_mib() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\n\r\n";
    let (url, sent) = endless_server(HEAD, &[0; 16 * 1024], Duration::ZERO).await.unwrap();
    let error = client(&url).participants(&room()).await.unwrap_err();
    assert!(matches!(error, LiveKitError::TooLarge), "{error:?}");
    // The buffers of both sockets hold some megabytes, and the server may fill them again before the
    // client closes its socket.
    let mebibytes = sent.load(Ordering::Relaxed) / (1024 * 1024);
    assert!((8..64).contains(&mebibytes), "the server sent {mebibytes} MiB");
}

#[tokio::test]
async fn announced_length_of_9_mib_is_refused_without_reading() {
    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\ncontent-length: 9437184\r\n\r\n";
    for error in errors_of_slow_response(HEAD, Duration::from_secs(1)).await {
        assert!(error.to_string().contains("larger than 8 MiB"), "{error:?}");
    }
}

#[tokio::test]
async fn rooms_that_were_not_asked_for_are_ignored() {
    let (other, asked) = (room(), room());
    let foreign = other.to_string();
    let (_server, rooms) = room_server(move |name| {
        vec![with_metadata(foreign.clone(), 1), with_metadata(name, 1), Room::default()]
    })
    .await;
    let listed = rooms.list(std::slice::from_ref(&asked)).await.unwrap();
    assert_eq!(listed.into_keys().collect::<Vec<_>>(), [asked]);
}

#[tokio::test]
async fn batch_larger_than_8_mib_is_listed_in_parts() {
    let (server, rooms) = room_server(|name| vec![with_metadata(name, MAX_METADATA)]).await;
    let names: HashSet<RoomName> = std::iter::repeat_with(room).take(256).collect();
    let names: Vec<_> = names.into_iter().collect();
    let listed = rooms.list(&names).await.unwrap();
    for name in &names {
        assert_eq!(listed.get(name), Some(&Ok(format!("RM_{name}"))));
    }
    // 15.6 MiB: one call for all rooms, and one for each half.
    assert_eq!(server.received_requests().await.unwrap().len(), 3);
}

#[tokio::test]
async fn batch_slower_than_the_time_limit_is_listed_in_parts() {
    let api = ScriptedApi::start("ann", "agent").await.unwrap();
    api.set_max_list(100);
    let names: Vec<_> = std::iter::repeat_with(room).take(200).collect();
    let listed = client(api.url()).list(&names).await.unwrap();
    for name in &names {
        assert_eq!(listed.get(name), Some(&Ok(format!("RM_{name}"))));
    }
    let sizes: Vec<_> = api.lists().into_iter().map(|(_, rooms)| rooms).collect();
    assert_eq!(sizes, [200, 1, 100, 100], "the list, a small call, and the halves");
}

#[tokio::test]
async fn batch_is_not_listed_in_parts_if_small_calls_time_out_as_well() {
    let api = ScriptedApi::start("ann", "agent").await.unwrap();
    api.set_max_list(0);
    let names: Vec<_> = std::iter::repeat_with(room).take(200).collect();
    assert_eq!(client(api.url()).list(&names).await, Err(LiveKitError::Timeout));
    assert_eq!(api.lists().len(), 2);
}

#[tokio::test]
async fn rooms_that_are_not_listed_in_time_are_reported_one_by_one() {
    let api = ScriptedApi::start("ann", "agent").await.unwrap();
    api.set_max_list(1);
    let names: Vec<_> = std::iter::repeat_with(room).take(256).collect();
    let listing = async { client(api.url()).list(&names).await };
    let listed = timeout(Duration::from_secs(6), listing).await.unwrap().unwrap();
    assert_eq!(listed.len(), names.len());
    assert!(listed.values().all(|sid| *sid == Err(LiveKitError::Timeout)));
}

#[tokio::test]
async fn room_larger_than_8_mib_does_not_hide_other_rooms() {
    let names: Vec<_> = std::iter::repeat_with(room).take(20).collect();
    let large = names[13].to_string();
    let (_server, rooms) = room_server(move |name| {
        let bytes = if name == large { 9 * 1024 * 1024 } else { 100 };
        vec![with_metadata(name, bytes)]
    })
    .await;
    let listed = rooms.list(&names).await.unwrap();
    for name in &names {
        let is_large = *name == names[13];
        let expected =
            if is_large { Err(LiveKitError::TooLarge) } else { Ok(format!("RM_{name}")) };
        assert_eq!(listed.get(name), Some(&expected), "{name}");
    }
}

/// The keeper waits eight seconds for all its observations of a batch.
#[tokio::test]
async fn halving_stops_in_time_for_the_rest_of_the_batch() {
    let server = MockServer::start().await;
    let large = ResponseTemplate::new(200)
        .set_body_raw(vec![0; 9 * 1024 * 1024], PROTOBUF)
        .set_delay(Duration::from_millis(500));
    Mock::given(matchers::any()).respond_with(large).mount(&server).await;
    let names: Vec<_> = std::iter::repeat_with(room).take(256).collect();
    let rooms = client(&server.uri());
    let listed = timeout(Duration::from_secs(6), rooms.list(&names)).await.unwrap().unwrap();
    for name in &names {
        assert_eq!(listed.get(name), Some(&Err(LiveKitError::TooLarge)));
    }
}

#[tokio::test]
async fn real_server_lists_rooms_with_much_metadata() {
    let server = Server::shared().await.unwrap();
    let api = RoomClient::with_api_key(&server.api_url(), server.api_key(), server.api_secret());
    // Together they are larger than 8 MiB.
    let names: HashSet<RoomName> = std::iter::repeat_with(room).take(140).collect();
    let names: Vec<_> = names.into_iter().collect();
    for name in &names {
        let metadata = "m".repeat(MAX_METADATA);
        let options = CreateRoomOptions { metadata, empty_timeout: 60, ..Default::default() };
        api.create_room(name.as_str(), options).await.unwrap();
    }
    let rooms = rooms(server);
    let listed = rooms.list(&names).await.unwrap();
    assert_eq!(listed.values().filter(|sid| sid.is_ok()).count(), names.len());
    for name in &names {
        rooms.delete(name).await.unwrap();
    }
}
