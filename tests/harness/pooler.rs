//! PgBouncer between a test and its PostgreSQL server.

use std::{
    fs,
    os::unix::fs::chown,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{
    free_port,
    servers::{PrivateServer, postgres_account, variable},
    until,
};

/// A pooler that runs until this is dropped.
pub struct Pooler {
    #[expect(dead_code, reason = "dropping it removes the folder")]
    folder: TempDir,
    port: u16,
    running: Child,
}

impl Pooler {
    /// Starts one before the server that gives connections away as `pool_mode` says: session or transaction.
    pub async fn before(server: &PrivateServer, pool_mode: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, place) = (free_port(), folder.path().display());
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {place}/users\n\
             pool_mode = {pool_mode}\ndefault_pool_size = 60\nmax_client_conn = 200\n",
            server.port()
        );
        let config = folder.path().join("pgbouncer.ini");
        fs::write(&config, ini).expect("written");
        fs::write(folder.path().join("users"), "\"doorward\" \"\"\n").expect("written");
        let mut pgbouncer = Command::new(variable("DOORWARD_TEST_PGBOUNCER"));
        pgbouncer.arg("-q").arg(&config);
        pgbouncer
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It refuses to run as root, as PostgreSQL does.
        if let Some((uid, gid)) = postgres_account() {
            chown(folder.path(), Some(uid), Some(gid)).expect("given away");
            pgbouncer.args(["-u", &variable("DOORWARD_TEST_PG_USER")]);
        }
        let pooler = Self {
            running: pgbouncer.spawn().expect("pgbouncer runs"),
            folder,
            port,
        };
        let url = pooler.url();
        until("PgBouncer answers", || async {
            tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .is_ok()
        })
        .await;
        pooler
    }

    /// The server's database, through the pooler.
    pub fn url(&self) -> String {
        format!(
            "postgres://doorward:hunter2@127.0.0.1:{}/postgres",
            self.port
        )
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}
