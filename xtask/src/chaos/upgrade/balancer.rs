//! Sends requests to two replicas, and to the other one while one of them is replaced.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use parking_lot::Mutex;

use crate::api::Api;

/// Number of replicas.
pub const REPLICAS: usize = 2;

#[derive(Default)]
pub struct Balancer {
    replicas: [Mutex<Replica>; REPLICAS],
    turn: AtomicUsize,
    lost_connections: AtomicUsize,
}

#[derive(Default, Clone)]
struct Replica {
    /// `None` before the first start.
    api: Option<Api>,
    is_being_replaced: bool,
}

impl Balancer {
    /// Returns the replica that serves the next request.
    pub fn next(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % REPLICAS
    }

    /// Returns the APIs of both replicas.
    pub fn apis(&self) -> Vec<Api> {
        self.replicas.iter().filter_map(|replica| replica.lock().api.clone()).collect()
    }

    /// Accepts lost connections of this replica until [`Self::started`].
    pub fn stopping(&self, replica: usize) {
        self.replicas[replica].lock().is_being_replaced = true;
    }

    /// Sends the requests for this replica to another process.
    pub fn started(&self, replica: usize, api: Api) {
        *self.replicas[replica].lock() = Replica { api: Some(api), is_being_replaced: false };
    }

    /// Returns how many requests lost their connection to a replica that was being replaced.
    pub fn lost_connections(&self) -> usize {
        self.lost_connections.load(Ordering::Relaxed)
    }

    /// Sends a request to the replica `first`. If this replica is being replaced and the connection
    /// is lost, sends it to the other one. Any other failure is returned.
    pub async fn send<T, F>(&self, first: usize, request: impl Fn(Api) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let before = self.replicas[first].lock().clone();
        let api = before.api.context("the replica was never started")?;
        match request(api).await {
            Err(error) if error.downcast_ref::<reqwest::Error>().is_some() => {
                let is_being_replaced = self.replicas[first].lock().is_being_replaced;
                if !before.is_being_replaced && !is_being_replaced {
                    return Err(error);
                }
                self.lost_connections.fetch_add(1, Ordering::Relaxed);
            }
            outcome => return outcome,
        }
        let other = self.replicas[REPLICAS - 1 - first].lock().api.clone();
        request(other.context("the other replica was never started")?).await
    }
}
