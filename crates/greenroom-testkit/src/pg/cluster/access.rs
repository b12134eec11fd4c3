//! Who may connect to a cluster, and with which TLS.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::super::connect;
use super::Cluster;
use crate::pg::{Authority, Issued};
use crate::wait_until;

/// Maximum time until a server has read its configuration again.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Replaces the rules of `pg_hba.conf`. They apply to new connections. At least one must admit the
    /// superuser with a password and without TLS.
    ///
    /// # Errors
    /// Returns an error if the server does not read its configuration.
    pub async fn set_access_rules(&self, rules: &str) -> Result<()> {
        std::fs::write(self.directory.join("data/pg_hba.conf"), rules)?;
        self.reload().await
    }

    /// Offers TLS with this certificate, and verifies certificates of clients by this authority.
    ///
    /// # Errors
    /// Returns an error if the server does not read its configuration.
    pub async fn offer_tls(&self, server: &Issued, clients: &Authority) -> Result<()> {
        let files = [
            ("ssl_cert_file", self.write_secret("server.crt", &server.certificate)?),
            ("ssl_key_file", self.write_secret("server.key", &server.key)?),
            ("ssl_ca_file", self.write_secret("clients.crt", clients.pem())?),
        ];
        let superuser = connect(&self.url("postgres")).await?;
        for (setting, file) in files {
            let file = file.display();
            superuser.batch_execute(&format!("alter system set {setting} = '{file}'")).await?;
        }
        superuser.batch_execute("alter system set ssl = on").await?;
        self.reload().await?;
        wait_until("PostgreSQL to offer TLS", RELOAD_TIMEOUT, || async {
            let setting = connect(&self.url("postgres")).await?.query_one("show ssl", &[]).await?;
            Ok((setting.try_get::<_, String>(0)? == "on").then_some(()))
        })
        .await
    }

    async fn reload(&self) -> Result<()> {
        let superuser = connect(&self.url("postgres")).await?;
        superuser.batch_execute("select pg_reload_conf()").await?;
        Ok(())
    }

    /// Writes a file that only the server can read.
    fn write_secret(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.directory.join(name);
        std::fs::write(&file, text)?;
        std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        if let Some(owner) = self.owner {
            chown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(file)
    }
}
