//! Two nodes of one cluster.

use std::time::Duration;

use greenroom_testkit::{agent::Actor, livekit::Cluster, user::User, wait_until};
use livekit_api::access_token::VideoGrants;

use crate::token;

const ROOM: &str = "of-a-cluster";
const AGENT: &str = "of-a-cluster";

#[tokio::test]
async fn a_node_that_is_killed_takes_its_room_with_it_and_the_other_goes_on() {
    let mut cluster = Cluster::start().await.unwrap();
    assert!(cluster.holder(ROOM).await.is_err());
    cluster.nodes()[0].dispatch(ROOM, "nobody", "").await.unwrap();
    let holder = cluster.holder(ROOM).await.unwrap();
    let other = 1 - holder;

    // By the node that does not hold the room: a worker, and a user.
    let node = &cluster.nodes()[other];
    let worker = Actor::named(AGENT).start(node).await.unwrap();
    node.dispatch(ROOM, AGENT, "").await.unwrap();
    let user = User::new(node.url(), &token(node, ROOM, VideoGrants::default()));
    let (agent, user) = tokio::join!(node.agent_in(ROOM, Duration::from_secs(20)), user.enter());
    assert_eq!(worker.jobs().unwrap().len(), 1);
    let mut identities: Vec<_> = cluster.nodes()[holder]
        .participants(ROOM)
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.identity)
        .collect();
    identities.sort();
    assert_eq!(identities, [agent.unwrap().identity, "ann".to_owned()], "{user:?}");

    cluster.nodes_mut()[holder].stop().await.unwrap();

    assert!(cluster.holder(ROOM).await.is_err());
    let node = &cluster.nodes()[other];
    // LiveKit may still give a new room to the node that died.
    wait_until("a room on the other node", Duration::from_secs(20), || async {
        node.dispatch("after", "nobody", "").await?;
        Ok(node.room("after").await?.map(drop))
    })
    .await
    .unwrap();
    cluster.nodes_mut()[holder].restart().await.unwrap();
    assert!(cluster.nodes()[holder].room("after").await.unwrap().is_some());
}
