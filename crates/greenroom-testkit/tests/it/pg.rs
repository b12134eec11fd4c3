//! Tests of PostgreSQL clusters and databases.

use std::time::{Duration, Instant};

use greenroom_testkit::pg::{Cluster, Database};
use greenroom_testkit::wait_until;
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn table_count(url: &str) -> i64 {
    let count = "select count(*) from pg_tables where schemaname = 'public'";
    connect(url).await.unwrap().query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn fresh_database_is_migrated_and_empty_database_is_not() {
    let (fresh, empty) = (Database::fresh().await.unwrap(), Database::empty().await.unwrap());
    assert!(table_count(fresh.url()).await >= 3);
    assert_eq!(table_count(empty.url()).await, 0);
}

#[tokio::test]
async fn fresh_databases_are_independent() {
    let (first, second) = tokio::join!(Database::fresh(), Database::fresh());
    let (first, second) = (first.unwrap(), second.unwrap());
    connect(first.url()).await.unwrap().batch_execute("create table mine ()").await.unwrap();
    assert_eq!(table_count(first.url()).await, table_count(second.url()).await + 1);
}

#[tokio::test]
async fn dropped_database_is_deleted_despite_open_connection() {
    let database = Database::empty().await.unwrap();
    let url = database.url().to_owned();
    let client = connect(&url).await.unwrap();
    drop(database);
    assert!(client.query_one("select 1", &[]).await.is_err());
    assert!(connect(&url).await.is_err());
}

#[tokio::test]
async fn stopped_cluster_restarts_with_same_port_and_data() {
    let mut cluster = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let port = cluster.port();
    let before = table_count(database.url()).await;

    cluster.stop().await.unwrap();
    assert!(connect(database.url()).await.is_err());

    cluster.start().await.unwrap();
    assert_eq!(cluster.port(), port);
    assert_eq!(table_count(database.url()).await, before);
}

#[tokio::test]
async fn dropped_cluster_closes_its_port() {
    let cluster = Cluster::temporary().await.unwrap();
    let url = cluster.url("postgres");
    drop(cluster);
    let closed = wait_until("the port to be closed", Duration::from_secs(1), || async {
        Ok(connect(&url).await.is_err().then_some(()))
    });
    closed.await.unwrap();
}

#[tokio::test]
async fn paused_cluster_can_be_dropped() {
    let cluster = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let client = connect(database.url()).await.unwrap();
    cluster.pause().unwrap();
    let answer =
        tokio::time::timeout(Duration::from_millis(300), client.query_one("select 1", &[]));
    assert!(answer.await.is_err());
    let started = Instant::now();
    drop(cluster);
    drop(database);
    assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
}
