//! The settings of a connection.

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use greenroom_store::{connect, translated_messages};
use greenroom_testkit::pg::{Cluster, Database};

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    lc_messages: String,
}

async fn language(url: &str) -> String {
    let mut db = connect(url).await.unwrap();
    let setting: Setting = sql_query("show lc_messages").get_result(&mut db).await.unwrap();
    setting.lc_messages
}

/// A German locale is installed on few machines, so this test uses another name of English.
#[tokio::test]
async fn messages_are_english_if_the_role_may_choose() {
    let cluster = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let name = database.name();
    db.batch_execute(&format!(
        "alter database {name} set lc_messages = 'POSIX';
         create role plain login password 'plain';
         create role granted login password 'granted';
         grant set on parameter lc_messages to granted"
    ))
    .await
    .unwrap();
    let url_of =
        |role: &str| format!("postgres://{role}:{role}@127.0.0.1:{}/{name}", cluster.port());
    assert_eq!(language(database.url()).await, "C", "a superuser");
    assert_eq!(language(&url_of("granted")).await, "C");
    assert_eq!(language(&url_of("plain")).await, "POSIX", "the connection opens nevertheless");
    let mut plain = connect(&url_of("plain")).await.unwrap();
    assert_eq!(translated_messages(&mut plain).await.unwrap(), None, "POSIX is English");
    assert!(!cluster.output().contains("permission denied"), "{}", cluster.output());
}
