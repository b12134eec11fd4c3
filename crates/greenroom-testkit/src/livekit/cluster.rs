//! Two LiveKit nodes that share a Redis.

use anyhow::{Context, Result};

use super::{Options, Server, redis::Redis};

/// A cluster of two nodes. A client of either reaches the rooms of both. Dropping it stops them at
/// once.
#[derive(Debug)]
pub struct Cluster {
    nodes: [Server; 2],
    redis: Redis,
}

impl Cluster {
    /// A new cluster for one test.
    ///
    /// # Errors
    /// When LiveKit or Redis is missing or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// A new cluster of nodes that differ from the usual ones.
    ///
    /// # Errors
    /// When LiveKit or Redis is missing or does not start.
    pub async fn start_with(options: Options) -> Result<Self> {
        let redis = Redis::start().await?;
        let options = Options { redis: Some(redis.address().to_owned()), ..options };
        let one = Server::start_with(options.clone()).await?;
        // What is signed for one is good for the other.
        let other = Server::start_with_secret(one.api_secret(), options).await?;
        Ok(Self { nodes: [one, other], redis })
    }

    /// The nodes. Which of them holds a room is LiveKit's choice.
    #[must_use]
    pub fn nodes(&self) -> &[Server; 2] {
        &self.nodes
    }

    /// The nodes, to be stopped and restarted.
    #[must_use]
    pub fn nodes_mut(&mut self) -> &mut [Server; 2] {
        &mut self.nodes
    }

    /// Which of the nodes holds this room.
    ///
    /// # Errors
    /// When none of those that run does.
    pub async fn holder(&self, room: &str) -> Result<usize> {
        let id = self.redis.field("room_node_map", room).await?;
        let id = id.with_context(|| format!("no node holds {room}"))?;
        self.nodes
            .iter()
            .position(|node| node.node_id().is_ok_and(|node_id| node_id == id))
            .with_context(|| format!("{id}, which holds {room}, does not run"))
    }
}
