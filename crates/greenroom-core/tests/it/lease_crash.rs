//! A replica dies at a statement of the lease protocol, and another one takes over.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use greenroom_core::{RoomSettings, Rooms};
use greenroom_testkit::sleep_for;
use tokio::time::timeout;

use crate::buckets::{HELD, Keeper, Scene, TIMEOUT, room};
use crate::halting_proxy::{CrashPoint, HaltingProxy};

const RENEW: &str = "update keeper_replicas set lease_until";
const RELEASE_BEFORE_REGISTERING: &str =
    r#"UPDATE "keeper_buckets" SET "replica" = $1 WHERE ("keeper_buckets"."replica" = $2)"#;
const REGISTER: &str = r#"INSERT INTO "keeper_replicas""#;
const ACQUIRE: &str = "update keeper_buckets set replica = $1, epoch = epoch + 1";
const RELEASE_SURPLUS: &str = r#""keeper_buckets"."bucket" = ANY"#;
const UNREGISTER: &str = r#"WHERE ("keeper_replicas"."id" = $1)"#;
const WRITE_SESSION: &str = "update sessions set status";

/// Maximum time until another replica holds all buckets: the lease of 6 s, and some time for the
/// next attempt on a busy machine.
const TAKEOVER: Duration = Duration::from_secs(20);

/// Time in which a second decision would be committed.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// The buckets that the live replica with the most buckets holds.
const HELD_BY_ONE: &str = "select coalesce(max(held), 0) from (
     select count(*) as held from keeper_buckets join keeper_replicas on id = replica
     where lease_until > now() group by replica) _";

const EXPIRED: &str = "select count(*) from session_events where event = 'expired'";

/// Lets a replica die at this point, and checks that another one takes over.
async fn check_takeover(point: CrashPoint) {
    let mut scene = Scene::with_sessions(1).await;
    let proxy = HaltingProxy::start(scene.database.url(), point).await;
    let dying = Keeper::of(scene.process_at(&proxy.url));
    let mut survivor = None;
    match point.statement {
        RELEASE_SURPLUS => {
            scene.wait_for("the first to hold all", HELD, 1024).await;
            survivor = Some(Keeper::of(scene.process()));
        }
        UNREGISTER => {
            scene.wait_for("the first to hold all", HELD, 1024).await;
            dying.stop.notify_one();
        }
        _ => {}
    }
    let halted = timeout(TIMEOUT, proxy.halted()).await;
    halted.unwrap_or_else(|_| panic!("the keeper did not reach {point:?}"));
    let died = Instant::now();
    drop(dying);
    // The join window is over.
    scene
        .run_sql(
            "update sessions set join_by = now(), next_check_at = now(), revision = revision + 1",
        )
        .await;
    let survivor = survivor.unwrap_or_else(|| Keeper::of(scene.process()));
    scene.wait_for("the survivor to hold all", HELD_BY_ONE, 1024).await;
    assert!(died.elapsed() < TAKEOVER, "{point:?}: {:?}", died.elapsed());
    scene.wait_for("the session to expire", EXPIRED, 1).await;
    if point.is_before {
        check_late_statement(&mut scene, &proxy, point).await;
    }
    sleep_for(SETTLE_TIME).await.unwrap();
    assert_eq!(scene.number(EXPIRED).await, 1, "decisions after {point:?}");
    assert!(scene.rooms.get(room(&scene.sessions[0])).is_none(), "{point:?}");
    survivor.stop().await;
}

/// PostgreSQL executes the statement of the dead replica after the other has taken over.
async fn check_late_statement(scene: &mut Scene, proxy: &HaltingProxy, point: CrashPoint) {
    let epochs = "select sum(epoch) from keeper_buckets";
    let before = scene.number(epochs).await;
    let changed = timeout(TIMEOUT, proxy.deliver()).await.unwrap();
    let delivered = Instant::now();
    // A late registration counts as a replica until its lease expires.
    if point.statement == REGISTER {
        assert_eq!(changed, 1);
    } else {
        assert_eq!(scene.number(epochs).await, before, "{point:?}");
    }
    if [RELEASE_BEFORE_REGISTERING, ACQUIRE, RELEASE_SURPLUS].contains(&point.statement) {
        assert_eq!(changed, 0, "{point:?}");
    }
    scene
        .wait_for(
            "the lease to expire",
            "select count(*) from keeper_replicas where lease_until > now()",
            1,
        )
        .await;
    scene.wait_for("the survivor to hold all again", HELD_BY_ONE, 1024).await;
    assert!(delivered.elapsed() < TAKEOVER, "{point:?}: {:?}", delivered.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_takes_over_wherever_a_replica_dies() {
    let executions = [
        (RENEW, 1),
        (RELEASE_BEFORE_REGISTERING, 1),
        (REGISTER, 1),
        (RENEW, 2),
        (ACQUIRE, 1),
        (RENEW, 3),
        (RELEASE_SURPLUS, 1),
        (UNREGISTER, 1),
    ];
    let points = executions.into_iter().flat_map(|(statement, execution)| {
        [true, false].map(|is_before| CrashPoint { statement, execution, is_before })
    });
    join_all(points.map(check_takeover)).await;
}

/// The replica dies before PostgreSQL receives its decision, which arrives after another replica has
/// acquired the bucket. The session has the same revision as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_decision_of_a_dead_replica_is_refused_by_the_epoch() {
    let mut scene = Scene::with_sessions(1).await;
    let room = room(&scene.sessions[0]).clone();
    scene.rooms.delete(&room).await.unwrap();
    let point = CrashPoint { statement: WRITE_SESSION, execution: 1, is_before: true };
    let proxy = HaltingProxy::start(scene.database.url(), point).await;
    let dying = Keeper::of(scene.process_at(&proxy.url));
    timeout(TIMEOUT, proxy.halted()).await.unwrap();
    drop(dying);
    scene.rooms.create(&room, &RoomSettings::closing()).await.unwrap();
    let revision = scene.number("select revision from sessions").await;
    let survivor = Keeper::of(scene.process());
    scene.wait_for("the survivor to hold all", HELD_BY_ONE, 1024).await;
    scene.wait_for("the epochs to grow", "select min(epoch) from keeper_buckets", 2).await;
    scene.wait_for_checks(2).await;
    assert_eq!(scene.number("select revision from sessions").await, revision);
    assert_eq!(timeout(TIMEOUT, proxy.deliver()).await.unwrap(), 0);
    let missing = "select count(*) from sessions where room_missing_since is not null";
    assert_eq!(scene.number(missing).await, 0);
    survivor.stop().await;
}
