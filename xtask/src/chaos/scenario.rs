//! The scenarios. The longest come first, so that no long scenario runs alone at the end.

use std::pin::Pin;

use anyhow::Result;

use super::deployment::{Deployment, Setup};
use super::{agents, calls, outages, replicas, workers};

/// A fault and the expected reaction to it.
pub struct Scenario {
    pub name: &'static str,
    /// The fault in a few words.
    pub description: &'static str,
    pub setup: Setup,
    pub run: Run,
}

/// Runs one round. Returns an error if a session does not end as expected.
type Run = for<'a> fn(&'a mut Deployment) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Returns all scenarios.
pub fn all() -> Vec<Scenario> {
    let default = Setup::default;
    let fast_keeper = || Setup { reconcile_seconds: Some(5), ..default() };
    let two_replicas = || Setup { replicas: 2, ..default() };
    let load_limit = || Setup { default_target_load: true, ..default() };
    let no_webhooks = Setup { reconcile_seconds: Some(2), no_webhooks: true, ..default() };
    let two_nodes = Setup { two_livekit_nodes: true, ..fast_keeper() };
    vec![
        scenario("max-duration", "the maximum duration of 60 s passes", default(), |deployment| {
            Box::pin(calls::max_duration(deployment))
        }),
        scenario("node-killed", "the room's LiveKit node is killed", two_nodes, |deployment| {
            Box::pin(outages::node_killed(deployment))
        }),
        scenario("worker-killed", "a worker is killed during a call", default(), |deployment| {
            Box::pin(workers::killed(deployment))
        }),
        scenario(
            "livekit-killed",
            "LiveKit is killed and restarted during a call",
            fast_keeper(),
            |deployment| Box::pin(outages::livekit_killed(deployment)),
        ),
        scenario("user-never-joins", "no user joins within 30 s", default(), |deployment| {
            Box::pin(calls::user_never_joins(deployment))
        }),
        scenario("burst", "more starts than the workers accept", default(), |deployment| {
            Box::pin(workers::burst(deployment))
        }),
        scenario("reload", "the page is reloaded and duplicated", default(), |deployment| {
            Box::pin(calls::reload(deployment))
        }),
        scenario("slow-boot", "the agent takes 10 s to join", default(), |deployment| {
            Box::pin(workers::slow_boot(deployment))
        }),
        scenario("overloaded", "the worker is overloaded for 8 s", load_limit(), |deployment| {
            Box::pin(workers::overloaded(deployment))
        }),
        scenario("no-worker", "no worker serves the agent's name", default(), |deployment| {
            Box::pin(workers::none(deployment))
        }),
        scenario("no-webhooks", "LiveKit's webhooks do not arrive", no_webhooks, |deployment| {
            Box::pin(outages::no_webhooks(deployment))
        }),
        scenario("leaves-at-once", "the agent joins and leaves at once", default(), |deployment| {
            Box::pin(agents::leaves_at_once(deployment))
        }),
        scenario("never-joins", "the agent's job never joins", default(), |deployment| {
            Box::pin(agents::never_joins(deployment))
        }),
        scenario(
            "duplicate-dispatch",
            "a client dispatches the agent a second time",
            default(),
            |deployment| Box::pin(agents::duplicate_dispatch(deployment)),
        ),
        scenario("hang-up", "the agent hangs up", default(), |deployment| {
            Box::pin(calls::hang_up(deployment))
        }),
        scenario("late-worker", "the worker registers 6 s late", default(), |deployment| {
            Box::pin(workers::late(deployment))
        }),
        scenario(
            "replica-killed",
            "the replica that served the start is killed",
            two_replicas(),
            |deployment| Box::pin(replicas::killed(deployment)),
        ),
        scenario(
            "replica-stopped",
            "one of two replicas is stopped, and continues later",
            two_replicas(),
            |deployment| Box::pin(replicas::stopped(deployment)),
        ),
        scenario("replays", "16 replays race on two replicas", two_replicas(), |deployment| {
            Box::pin(replicas::replays(deployment))
        }),
        scenario(
            "early-worker",
            "no fault: the worker is ready before the start",
            default(),
            |deployment| Box::pin(workers::early(deployment)),
        ),
    ]
}

fn scenario(name: &'static str, description: &'static str, setup: Setup, run: Run) -> Scenario {
    Scenario { name, description, setup, run }
}
