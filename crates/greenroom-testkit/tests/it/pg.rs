//! Clusters and databases.

use std::time::{Duration, Instant};

use greenroom_testkit::{
    pg::{Cluster, Database},
    wait_until,
};
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn tables(url: &str) -> i64 {
    let count = "select count(*) from pg_tables where schemaname = 'public'";
    connect(url).await.unwrap().query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_fresh_database_is_migrated_and_an_empty_one_is_not() {
    let (fresh, empty) = (Database::fresh().await.unwrap(), Database::empty().await.unwrap());
    assert!(tables(fresh.url()).await >= 3);
    assert_eq!(tables(empty.url()).await, 0);
}

#[tokio::test]
async fn two_fresh_databases_are_two() {
    let (one, other) = tokio::join!(Database::fresh(), Database::fresh());
    let (one, other) = (one.unwrap(), other.unwrap());
    connect(one.url()).await.unwrap().batch_execute("create table mine ()").await.unwrap();
    assert_eq!(tables(one.url()).await, tables(other.url()).await + 1);
}

#[tokio::test]
async fn a_dropped_database_is_gone_even_with_a_connection_open() {
    let database = Database::empty().await.unwrap();
    let url = database.url().to_owned();
    let client = connect(&url).await.unwrap();
    drop(database);
    assert!(client.query_one("select 1", &[]).await.is_err());
    assert!(connect(&url).await.is_err());
}

#[tokio::test]
async fn a_cluster_that_was_stopped_comes_back_on_its_port_with_its_data() {
    let mut cluster = Cluster::private().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let port = cluster.port();
    let before = tables(database.url()).await;

    cluster.stop().await.unwrap();
    assert!(connect(database.url()).await.is_err());

    cluster.start().await.unwrap();
    assert_eq!(cluster.port(), port);
    assert_eq!(tables(database.url()).await, before);
}

#[tokio::test]
async fn a_dropped_cluster_leaves_nothing() {
    let cluster = Cluster::private().await.unwrap();
    let url = cluster.url("postgres");
    drop(cluster);
    let gone = wait_until("the port to be closed", Duration::from_secs(1), || async {
        Ok(connect(&url).await.is_err().then_some(()))
    });
    gone.await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_hangs_is_dropped_all_the_same() {
    let cluster = Cluster::private().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let client = connect(database.url()).await.unwrap();
    cluster.pause().unwrap();
    let asked = tokio::time::timeout(Duration::from_millis(300), client.query_one("select 1", &[]));
    assert!(asked.await.is_err());
    let started = Instant::now();
    drop(cluster);
    drop(database);
    assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
}
