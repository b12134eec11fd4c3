//! A round's LiveKit: a server, or two nodes of a cluster.

use anyhow::Result;
use greenroom_testkit::livekit::{Cluster, Options, Server, USUAL_TARGET_LOAD};
use greenroom_testkit::place;

use super::Setting;

/// One node or two.
pub enum LiveKit {
    One(Box<Server>),
    Two(Box<Cluster>),
}

impl LiveKit {
    pub async fn start(setting: &Setting, replicas: &[u16]) -> Result<Self> {
        let url = |port: &u16| format!("http://127.0.0.1:{port}/webhooks/livekit");
        let webhook_urls = if setting.no_webhooks {
            vec![url(&place::free_tcp_port()?)]
        } else {
            replicas.iter().map(url).collect()
        };
        let target_load = setting.usual_target_load.then_some(USUAL_TARGET_LOAD);
        let options = Options { webhook_urls, target_load, ..Options::default() };
        Ok(if setting.cluster {
            Self::Two(Box::new(Cluster::start_with(options).await?))
        } else {
            Self::One(Box::new(Server::start_with(options).await?))
        })
    }

    /// The node that everybody talks to.
    pub fn node(&self) -> &Server {
        match self {
            Self::One(server) => server,
            Self::Two(cluster) => &cluster.nodes()[0],
        }
    }

    /// The same, to be stopped and restarted.
    pub fn node_mut(&mut self) -> &mut Server {
        match self {
            Self::One(server) => server,
            Self::Two(cluster) => &mut cluster.nodes_mut()[0],
        }
    }

    pub fn outputs(&self) -> Vec<String> {
        let nodes = match self {
            Self::One(server) => std::slice::from_ref(&**server),
            Self::Two(cluster) => cluster.nodes().as_slice(),
        };
        nodes.iter().map(|node| node.output().unwrap_or_else(|error| error.to_string())).collect()
    }
}
