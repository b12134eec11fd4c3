//! Two LiveKit nodes that share a Redis.

use anyhow::{Context, Result};

use super::redis::Redis;
use super::{Options, Server};

/// A cluster of two nodes. A client of either node can reach the rooms of both nodes. Dropping the
/// cluster stops the nodes at once.
#[derive(Debug)]
pub struct Cluster {
    nodes: [Server; 2],
    redis: Redis,
}

impl Cluster {
    /// Starts a cluster for one test.
    ///
    /// # Errors
    /// Returns an error if LiveKit or Redis is missing or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts a cluster of nodes with these options. [`Options::redis`] is replaced.
    ///
    /// # Errors
    /// Returns an error if LiveKit or Redis is missing or does not start.
    pub async fn start_with(options: Options) -> Result<Self> {
        let redis = Redis::start().await?;
        let options = Options { redis: Some(redis.address().to_owned()), ..options };
        let first = Server::start_with(options.clone()).await?;
        // With the same secret, each node accepts tokens that were signed for the other node.
        let second = Server::start_with_secret(first.api_secret(), options).await?;
        Ok(Self { nodes: [first, second], redis })
    }

    /// Returns the nodes. LiveKit chooses the node of each room.
    #[must_use]
    pub fn nodes(&self) -> &[Server; 2] {
        &self.nodes
    }

    /// Returns the nodes so that they can be stopped and restarted.
    #[must_use]
    pub fn nodes_mut(&mut self) -> &mut [Server; 2] {
        &mut self.nodes
    }

    /// Returns the index of the node on which this room is.
    ///
    /// # Errors
    /// Returns an error if the room is not on a running node.
    pub async fn node_of_room(&self, room: &str) -> Result<usize> {
        let id = self.redis.hash_field("room_node_map", room).await?;
        let id = id.with_context(|| format!("the room {room} is on no node"))?;
        self.nodes
            .iter()
            .position(|node| node.node_id().is_ok_and(|node_id| node_id == id))
            .with_context(|| format!("the node {id} of the room {room} is not running"))
    }
}
