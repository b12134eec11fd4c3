//! What is played, and on which stage. The longest come first, so that none is left for the end.

use std::pin::Pin;

use anyhow::Result;

use super::stage::{Setting, Stage};
use super::{agents, calls, outages, replicas, workers};

/// A kind of trouble.
pub struct Scenario {
    pub name: &'static str,
    /// The trouble, in a few words.
    pub says: &'static str,
    pub setting: Setting,
    pub play: Play,
}

/// One round of it, which fails when something is not as it must be.
type Play = for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let usual = Setting::default;
    let brisk = || Setting { reconcile_seconds: Some(5), ..usual() };
    let two = || Setting { replicas: 2, ..usual() };
    let loaded = || Setting { usual_target_load: true, ..usual() };
    let deaf = Setting { reconcile_seconds: Some(2), no_webhooks: true, ..usual() };
    let cluster = Setting { cluster: true, ..brisk() };
    vec![
        scenario("max-duration", "a minute is over", usual(), |stage| {
            Box::pin(calls::max_duration(stage))
        }),
        scenario("node-killed", "the room's LiveKit node of two dies", cluster, |stage| {
            Box::pin(outages::node_killed(stage))
        }),
        scenario("worker-killed", "a worker dies in a call", usual(), |stage| {
            Box::pin(workers::killed(stage))
        }),
        scenario("livekit-killed", "LiveKit restarts in a call", brisk(), |stage| {
            Box::pin(outages::livekit_killed(stage))
        }),
        scenario("nobody-joins", "the join window closes", usual(), |stage| {
            Box::pin(calls::nobody_joins(stage))
        }),
        scenario("burst", "more starts than places", usual(), |stage| {
            Box::pin(workers::burst(stage))
        }),
        scenario("reload", "a reload, a second tab, a farewell", usual(), |stage| {
            Box::pin(calls::reload(stage))
        }),
        scenario("slow-boot", "an agent boots for ten seconds", usual(), |stage| {
            Box::pin(workers::slow_boot(stage))
        }),
        scenario("overloaded", "the worker is overloaded for 8 s", loaded(), |stage| {
            Box::pin(workers::overloaded(stage))
        }),
        scenario("no-worker", "nobody serves the name", usual(), |stage| {
            Box::pin(workers::none(stage))
        }),
        scenario("no-webhooks", "LiveKit's webhooks reach nobody", deaf, |stage| {
            Box::pin(outages::no_webhooks(stage))
        }),
        scenario("leaves-at-once", "the agent leaves as soon as it is in", usual(), |stage| {
            Box::pin(agents::leaves_at_once(stage))
        }),
        scenario("never-joins", "the agent's job never joins", usual(), |stage| {
            Box::pin(agents::never_joins(stage))
        }),
        scenario("asked-twice", "somebody else asks for the agent, too", usual(), |stage| {
            Box::pin(agents::asked_for_twice(stage))
        }),
        scenario("hang-up", "the agent leaves of its own accord", usual(), |stage| {
            Box::pin(calls::hang_up(stage))
        }),
        scenario("late-worker", "the worker registers 6 s late", usual(), |stage| {
            Box::pin(workers::late(stage))
        }),
        scenario("replica-killed", "a replica dies after its reply", two(), |stage| {
            Box::pin(replicas::killed(stage))
        }),
        scenario("replays", "sixteen replays race on two replicas", two(), |stage| {
            Box::pin(replicas::replays(stage))
        }),
        scenario("early-worker", "no trouble at all", usual(), |stage| {
            Box::pin(workers::early(stage))
        }),
    ]
}

fn scenario(name: &'static str, says: &'static str, setting: Setting, play: Play) -> Scenario {
    Scenario { name, says, setting, play }
}
