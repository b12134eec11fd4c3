//! TLS to PostgreSQL, with the parameters of libpq, on a real server.

use std::path::PathBuf;
use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_query;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use greenroom_store::connection::settle;
use greenroom_store::{ConnectionError, DatabaseUrl, connect};
use greenroom_testkit::pg::{Authority, Cluster};
use greenroom_testkit::{paths, random_hex};
use tokio::time::{Instant, timeout};

/// The host of the server's certificate.
const HOST: &str = "db.example.com";

const ANY: &str = "host all all all scram-sha-256\n";

/// The superuser of the tests needs no TLS; the other roles do.
const REQUIRED: &str = "host all postgres all scram-sha-256\nhostssl all certified all cert\nhostssl all all all scram-sha-256\n";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Bool)]
    has_tls: bool,
}

/// A server that offers TLS, and the files with which clients verify it.
struct Server {
    cluster: Cluster,
    authority: Authority,
    directory: PathBuf,
}

impl Server {
    async fn start() -> Self {
        let cluster = Cluster::temporary().await.unwrap();
        let authority = Authority::new("trusted").unwrap();
        cluster.offer_tls(&authority.issue(HOST).unwrap(), &authority).await.unwrap();
        let directory = paths::target_dir().join("tls").join(random_hex().unwrap());
        std::fs::create_dir_all(&directory).unwrap();
        let server = Self { cluster, authority, directory };
        server.file("trusted.crt", server.authority.pem());
        server.file("other.crt", Authority::new("other").unwrap().pem());
        server
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.directory.join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// Returns the URL of the superuser. `DIRECTORY` in the parameters is that of the files.
    fn url(&self, host: &str, parameters: &str) -> String {
        let url = self.cluster.url("postgres");
        let url = url.replace("127.0.0.1", host);
        let parameters = parameters.replace("DIRECTORY", self.directory.to_str().unwrap());
        format!("{url}?hostaddr=127.0.0.1&{parameters}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// Returns whether the connection has TLS, or why it was not opened.
async fn has_tls(url: &str) -> Result<bool, String> {
    let mut db = connect(url).await.map_err(|error| match error {
        ConnectionError::BadConnection(reason) => reason,
        error => format!("{error:?}"),
    })?;
    let query = "select ssl as has_tls from pg_stat_ssl where pid = pg_backend_pid()";
    let row: Row = sql_query(query).get_result(&mut db).await.unwrap();
    Ok(row.has_tls)
}

#[tokio::test]
async fn modes_mean_what_they_mean_to_libpq() {
    let server = Server::start().await;
    server.cluster.set_access_rules(ANY).await.unwrap();
    for (host, parameters, expected) in [
        (HOST, "sslmode=disable", Ok(false)),
        (HOST, "", Ok(true)),
        (HOST, "sslmode=allow", Ok(true)),
        (HOST, "sslmode=prefer", Ok(true)),
        (HOST, "sslmode=require", Ok(true)),
        (HOST, "sslmode=require&channel_binding=require", Ok(true)),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=DIRECTORY/trusted.crt", Ok(true)),
        (HOST, "sslmode=verify-full&sslrootcert=DIRECTORY/trusted.crt", Ok(true)),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=DIRECTORY/trusted.crt", Err("not trusted")),
        (HOST, "sslmode=verify-ca&sslrootcert=DIRECTORY/other.crt", Err("not trusted")),
        (HOST, "sslmode=require&sslrootcert=DIRECTORY/other.crt", Err("not trusted")),
        (HOST, "sslmode=verify-full", Err("certificate")),
        (HOST, "sslrootcert=system", Err("certificate")),
        (
            HOST,
            "sslmode=verify-ca&sslrootcert=DIRECTORY/none.crt",
            Err("failed to read sslrootcert"),
        ),
        (HOST, "sslmode=disable&channel_binding=require", Err("channel binding")),
    ] {
        let connected = has_tls(&server.url(host, parameters)).await;
        match (&connected, expected) {
            (Ok(has_tls), Ok(expected)) if *has_tls == expected => {}
            (Err(reason), Err(part)) if reason.contains(part) => {}
            _ => panic!("{host} {parameters}: {connected:?}"),
        }
    }
}

#[tokio::test]
async fn server_without_tls_is_named_unless_tls_is_optional() {
    let cluster = Cluster::temporary().await.unwrap();
    let url = cluster.url("postgres");
    assert_eq!(has_tls(&url).await, Ok(false));
    let refused = has_tls(&format!("{url}?sslmode=require")).await.unwrap_err();
    assert!(refused.contains("the server does not offer TLS"), "{refused}");
}

#[tokio::test]
async fn server_that_requires_tls_or_a_client_certificate_is_explained() {
    let server = Server::start().await;
    let superuser = server.url(HOST, "");
    let mut db = connect(&superuser).await.unwrap();
    for role in ["plain", "certified"] {
        let create = format!("create role {role} login password '{role}'");
        sql_query(create).execute(&mut db).await.unwrap();
    }
    server.cluster.set_access_rules(REQUIRED).await.unwrap();
    let of = |role: &str, parameters: &str| {
        let url = server.url(HOST, parameters);
        let (_, host) = url.split_once('@').unwrap();
        format!("postgres://{role}:{role}@{host}")
    };
    let refused = has_tls(&of("plain", "sslmode=disable")).await.unwrap_err();
    assert!(refused.ends_with("if the server requires TLS, set sslmode=require"), "{refused}");
    assert_eq!(has_tls(&of("plain", "")).await, Ok(true));
    let refused = has_tls(&of("certified", "")).await.unwrap_err();
    assert!(
        refused.ends_with("requires a client certificate, set sslcert and sslkey"),
        "{refused}"
    );
    let issued = server.authority.issue("certified").unwrap();
    let (certificate, key) =
        (server.file("client.crt", &issued.certificate), server.file("client.key", &issued.key));
    let url = of("certified", &format!("sslcert={certificate}&sslkey={key}"));
    assert_eq!(has_tls(&url).await, Ok(true));
}

#[tokio::test]
async fn password_is_not_sent_in_cleartext_to_another_machine() {
    let server = Server::start().await;
    server.cluster.set_access_rules("host all all all password\n").await.unwrap();
    let refused = has_tls(&server.url(HOST, "sslmode=disable")).await.unwrap_err();
    assert!(refused.contains("asks for the password in cleartext"), "{refused}");
    assert_eq!(has_tls(&server.url(HOST, "sslmode=require")).await, Ok(true));
    assert_eq!(has_tls(&server.url("127.0.0.1", "sslmode=disable")).await, Ok(false));
}

#[tokio::test]
async fn statement_is_canceled_over_tls() {
    let server = Server::start().await;
    let url: DatabaseUrl = server.url(HOST, "sslmode=require").parse().unwrap();
    let mut db = connect(url.as_str()).await.unwrap();
    let sleep = sql_query("select pg_sleep(4), true as has_tls");
    let abandoned = timeout(Duration::from_millis(200), sleep.execute(&mut db)).await;
    assert!(abandoned.is_err());
    let begun = Instant::now();
    settle(&mut db, &url).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
