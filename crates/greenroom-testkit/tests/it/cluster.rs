//! Test of a LiveKit cluster with two nodes.

use std::time::Duration;

use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::livekit::Cluster;
use greenroom_testkit::user::User;
use greenroom_testkit::wait_until;
use livekit_api::access_token::VideoGrants;

use crate::token;

const ROOM: &str = "cluster-room";
const AGENT: &str = "cluster-agent";

#[tokio::test]
async fn killed_node_loses_its_room_and_other_node_continues() {
    let mut cluster = Cluster::start().await.unwrap();
    assert!(cluster.node_of_room(ROOM).await.is_err());
    cluster.nodes()[0].dispatch(ROOM, "missing-agent", "").await.unwrap();
    let room_node = cluster.node_of_room(ROOM).await.unwrap();
    let other = 1 - room_node;

    // A worker and a user connect to the node on which the room is not.
    let node = &cluster.nodes()[other];
    let worker = ScriptedAgent::named(AGENT).start(node).await.unwrap();
    node.dispatch(ROOM, AGENT, "").await.unwrap();
    let user = User::new(node.url(), &token(node, ROOM, VideoGrants::default()));
    let (agent, user) =
        tokio::join!(node.wait_for_agent(ROOM, Duration::from_secs(20)), user.join_and_stay());
    assert_eq!(worker.jobs().unwrap().len(), 1);
    let mut identities: Vec<_> = cluster.nodes()[room_node]
        .participants(ROOM)
        .await
        .unwrap()
        .into_iter()
        .map(|participant| participant.identity)
        .collect();
    identities.sort();
    assert_eq!(identities, [agent.unwrap().identity, "ann".to_owned()], "{user:?}");

    cluster.nodes_mut()[room_node].stop().await.unwrap();

    assert!(cluster.node_of_room(ROOM).await.is_err());
    let node = &cluster.nodes()[other];
    // LiveKit may still assign a new room to the killed node.
    wait_until("a room on the other node", Duration::from_secs(20), || async {
        node.dispatch("after", "missing-agent", "").await?;
        Ok(node.room("after").await?.map(drop))
    })
    .await
    .unwrap();
    cluster.nodes_mut()[room_node].restart().await.unwrap();
    assert!(cluster.nodes()[room_node].room("after").await.unwrap().is_some());
}
