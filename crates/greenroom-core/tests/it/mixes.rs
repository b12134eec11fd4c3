//! Random mixes of concurrent starts: a model of the rules predicts the outcome of each start.

mod model;
mod random;

use std::collections::BTreeSet;
use std::sync::Arc;

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_core::domain::{
    IdempotencyKey, JsonObject, SessionCount, SessionId, SessionTemplateId, UserId,
};
use greenroom_core::{Caller, Greenroom, MemoryRooms, SessionLimit, StartRequest};
use greenroom_testkit::pg::Database;
use greenroom_testkit::{env, random_hex};
use rand::Rng;

use self::model::{Kind, Model, Outcome};
use self::random::Seeded;
use crate::{on_join_template, organization, service, template};

/// Number of concurrent starts.
const STARTS: usize = 64;

/// Number of mixes, unless `GREENROOM_TEST_MIXES` is set.
const MIXES: u64 = 100;

/// Number of mixes after which keys and end users get new names, so that some are already in use.
const MIXES_PER_NAME: u64 = 4;

/// Maximum numbers of open sessions. `None` means no limit.
const LIMITS: [Option<usize>; 5] = [None, None, None, Some(5), Some(12)];

/// An organization with its templates, and the model of its sessions.
struct Tenant {
    caller: Caller,
    template: SessionTemplateId,
    archived: SessionTemplateId,
    model: Model,
}

impl Tenant {
    async fn new(greenroom: &Greenroom, limit: Option<usize>) -> Self {
        let caller = Caller::backend(organization());
        let startable = on_join_template(greenroom, &caller).await;
        let archived = greenroom.create_template(&caller, template("Archived")).await.unwrap().id;
        greenroom.archive_template(&caller, archived).await.unwrap();
        if let Some(limit) = limit {
            let limit = SessionCount::try_from(i64::try_from(limit).unwrap()).unwrap();
            let limit = SessionLimit::AtMost(limit);
            greenroom.admin().set_session_limit(caller.organization_id, limit).await.unwrap();
        }
        Self { caller, template: startable, archived, model: Model::new(limit) }
    }

    /// The caller and the request of a start. `names` distinguishes keys and users of different mixes.
    fn request(
        &self,
        kind: Kind,
        names: u64,
        foreign: SessionTemplateId,
    ) -> (Caller, StartRequest) {
        let mut request = StartRequest::new(self.template);
        let name = |number: u8| format!("{names}-{number}");
        let mut caller = self.caller.clone();
        let as_user = |name: &str| Caller::end_user(caller.organization_id, user(name));
        match kind {
            Kind::Plain => {}
            Kind::LongUser => request.user_id = Some(user(&"u".repeat(128))),
            Kind::Key { key, body } => {
                request.idempotency_key = Some(IdempotencyKey::try_from(name(key)).unwrap());
                request.user_id = (body > 0).then(|| user(&format!("user-{body}")));
            }
            Kind::UserKey { user, key } => {
                request.idempotency_key = Some(IdempotencyKey::try_from(name(key)).unwrap());
                caller = as_user(&name(user));
            }
            Kind::EndUser(user) => caller = as_user(&name(user)),
            Kind::UnknownTemplate => {
                request.session_template_id = SessionTemplateId(uuid::Uuid::from_u128(1));
            }
            Kind::ArchivedTemplate => request.session_template_id = self.archived,
            Kind::ForeignTemplate => request.session_template_id = foreign,
            Kind::OtherAgent => request.agent_name = "other".to_owned().try_into().ok(),
            Kind::OtherUser => {
                caller = as_user("ann");
                request.user_id = Some(user("ben"));
            }
            Kind::Metadata => {
                caller = as_user("ann");
                request.metadata = JsonObject::try_from(serde_json::Map::new()).ok();
            }
        }
        (caller, request)
    }

    /// Ends some sessions of the model, so that the next mix begins at another distance from the limit.
    async fn end_some(&mut self, greenroom: &Greenroom, random: &mut Seeded) {
        let share = random.random_range(0..4);
        let is_ended = |_: &SessionId| random.random_ratio(share, 4);
        let ended: Vec<_> = self.model.endable().into_iter().filter(is_ended).collect();
        for id in ended {
            greenroom.end(&self.caller, id).await.unwrap().unwrap();
            self.model.end(id);
        }
    }
}

fn user(name: &str) -> UserId {
    UserId::try_from(name.to_owned()).unwrap()
}

/// Starts one mix, and returns the outcomes per tenant.
async fn run_mix(
    replicas: &[Greenroom; 2],
    tenants: &[Tenant],
    names: u64,
    random: &mut Seeded,
) -> Vec<Vec<(Kind, Outcome)>> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let number = random.random_range(0..tenants.len());
        let kind = Kind::random(random);
        let foreign = tenants[(number + 1) % tenants.len()].template;
        let (caller, request) = tenants[number].request(kind, names, foreign);
        let replica = replicas[random.random_range(0..replicas.len())].clone();
        let start = tokio::spawn(async move { replica.start(&caller, request).await });
        starts.push((number, kind, start));
    }
    let mut outcomes: Vec<_> = tenants.iter().map(|_| Vec::new()).collect();
    for (number, kind, start) in starts {
        outcomes[number].push((kind, start.await.unwrap()));
    }
    outcomes
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    id: uuid::Uuid,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Prints the seed, which only a failed test shows. The order of concurrent starts differs in each run.
fn seeded() -> Seeded {
    let seed = env::number("GREENROOM_TEST_SEED")
        .unwrap_or_else(|| u64::from_str_radix(&random_hex().unwrap(), 16).unwrap());
    println!("repeat the mixes with GREENROOM_TEST_SEED={seed}");
    Seeded(seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_start_of_a_random_mix_has_the_outcome_of_the_model() {
    let mut random = seeded();
    let database = Database::fresh().await.unwrap();
    let replica = || service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let replicas = [replica(), replica()];
    let mut tenants = Vec::new();
    for limit in LIMITS {
        tenants.push(Tenant::new(&replicas[0], limit).await);
    }
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    for mix in 0..env::number("GREENROOM_TEST_MIXES").unwrap_or(MIXES) {
        println!("mix {mix}");
        let names = mix / MIXES_PER_NAME;
        if mix % MIXES_PER_NAME == 0 {
            for tenant in &mut tenants {
                tenant.model.forget_names();
            }
        }
        let outcomes = run_mix(&replicas, &tenants, names, &mut random).await;
        for (tenant, outcomes) in tenants.iter_mut().zip(outcomes) {
            tenant.model.check(outcomes);
        }
        let count: Count =
            sql_query("select count(*) from sessions").get_result(&mut db).await.unwrap();
        let expected: usize = tenants.iter().map(|tenant| tenant.model.written().len()).sum();
        assert_eq!(usize::try_from(count.count).unwrap(), expected, "stored sessions");
        for tenant in &mut tenants {
            tenant.end_some(&replicas[0], &mut random).await;
        }
    }
    let stored: Vec<Stored> = sql_query("select id from sessions").load(&mut db).await.unwrap();
    let stored: BTreeSet<_> = stored.into_iter().map(|row| SessionId(row.id)).collect();
    let written = tenants.iter().flat_map(|tenant| tenant.model.written()).copied().collect();
    assert_eq!(stored, written);
}
