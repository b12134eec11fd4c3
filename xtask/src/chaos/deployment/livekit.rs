//! The LiveKit of one round: a single server, or a cluster of two nodes.

use anyhow::Result;
use greenroom_testkit::livekit::{Cluster, LIVEKIT_DEFAULT_TARGET_LOAD, Options, Server};
use greenroom_testkit::ports;

use super::Setup;

pub enum LiveKit {
    One(Box<Server>),
    Two(Box<Cluster>),
}

impl LiveKit {
    /// Starts LiveKit, which sends its webhooks to the replicas on these ports.
    pub async fn start(setup: &Setup, replica_ports: &[u16]) -> Result<Self> {
        let url = |port: &u16| format!("http://127.0.0.1:{port}/webhooks/livekit");
        let webhook_urls = if setup.no_webhooks {
            // No process listens on this port.
            vec![url(&ports::free_tcp_port()?)]
        } else {
            replica_ports.iter().map(url).collect()
        };
        let target_load = setup.default_target_load.then_some(LIVEKIT_DEFAULT_TARGET_LOAD);
        let options = Options { webhook_urls, target_load, ..Options::default() };
        Ok(if setup.two_livekit_nodes {
            Self::Two(Box::new(Cluster::start_with(options).await?))
        } else {
            Self::One(Box::new(Server::start_with(options).await?))
        })
    }

    /// Returns the node that replicas, workers and users connect to.
    pub fn node(&self) -> &Server {
        match self {
            Self::One(server) => server,
            Self::Two(cluster) => &cluster.nodes()[0],
        }
    }

    /// Returns the same node as [`Self::node`], to stop or restart it.
    pub fn node_mut(&mut self) -> &mut Server {
        match self {
            Self::One(server) => server,
            Self::Two(cluster) => &mut cluster.nodes_mut()[0],
        }
    }

    /// Returns the logs of all nodes.
    pub fn outputs(&self) -> Vec<String> {
        let nodes = match self {
            Self::One(server) => std::slice::from_ref(&**server),
            Self::Two(cluster) => cluster.nodes().as_slice(),
        };
        nodes.iter().map(|node| node.output().unwrap_or_else(|error| error.to_string())).collect()
    }
}
