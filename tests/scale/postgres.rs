//! PostgreSQL: a primary and a standby that streams from it.
//!
//! `fsync` is on, so that what is acknowledged is on two disks where the standby is synchronous. Which of both is to be
//! the primary, and that the other is fenced, is for those who play.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use tokio_postgres::{Client, NoTls};

use crate::{
    Outcome,
    machines::Machine,
    nodes::Variables,
    programs::{Program, installed, run, until},
};

/// The name that the standby gives itself.
const STANDBY: &str = "standby";

/// One server.
pub(crate) struct Server {
    address: String,
    port: u16,
    program: Program,
}

/// A primary with its standby.
pub(crate) struct Pair {
    pub(crate) primary: Server,
    pub(crate) standby: Server,
}

/// User and group to run PostgreSQL as, which refuses to run as root.
fn account() -> Outcome<Option<(u32, u32)>> {
    let name = std::env::var("DOORWARD_TEST_PG_USER").unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    let mut lines = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields[0] == name);
    let fields = fields.ok_or("there is no such user in /etc/passwd")?;
    Ok(Some((fields[2].parse()?, fields[3].parse()?)))
}

fn program(name: &str) -> Outcome<PathBuf> {
    Ok(installed("DOORWARD_TEST_PG_BIN")?.join(name))
}

/// A folder that PostgreSQL may use.
fn own_folder(path: &Path) -> Outcome<()> {
    fs::create_dir_all(path)?;
    if let Some((uid, gid)) = account()? {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

impl Server {
    /// An empty one.
    pub(crate) async fn alone(machine: &Machine, folder: &Path) -> Outcome<Self> {
        own_folder(folder)?;
        let data = folder.join("data");
        let mut initdb = machine.command(&program("initdb")?, account()?);
        initdb.args(["--username=doorward", "--auth=trust", "--encoding=UTF8"]);
        run(initdb.args(["--locale=C", "--pgdata"]).arg(&data))?;
        let hba = data.join("pg_hba.conf");
        let others = "host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n";
        fs::write(&hba, fs::read_to_string(&hba)? + others)?;
        Self::on(machine, &data, folder).await
    }

    /// One that streams from another.
    async fn standby_of(primary: &Self, machine: &Machine, folder: &Path) -> Outcome<Self> {
        own_folder(folder)?;
        let data = folder.join("data");
        let mut backup = machine.command(&program("pg_basebackup")?, account()?);
        let (address, port) = (&primary.address, primary.port);
        let from = format!("host={address} port={port} user=doorward application_name={STANDBY}");
        backup.args([
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--dbname",
            &from,
        ]);
        run(backup.arg("--pgdata").arg(&data))?;
        Self::on(machine, &data, folder).await
    }

    async fn on(machine: &Machine, data: &Path, folder: &Path) -> Outcome<Self> {
        let port = machine.free_port()?;
        let mut postgres = machine.command(&program("postgres")?, account()?);
        postgres.arg("-D").arg(data).arg("-p").arg(port.to_string());
        for setting in [
            &format!("listen_addresses={}", machine.address),
            "unix_socket_directories=",
            "max_connections=200",
            "wal_sender_timeout=10s",
        ] {
            postgres.args(["-c", setting]);
        }
        let server = Self {
            address: machine.address.clone(),
            port,
            program: Program::start(&mut postgres, &folder.join("server.log"))?,
        };
        until("PostgreSQL answers", async || {
            server.connect().await.is_ok()
        })
        .await?;
        Ok(server)
    }

    async fn connect(&self) -> Outcome<Client> {
        let url = format!("postgres://doorward@{}/postgres", self.place());
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn place(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    async fn says(&self, question: &str) -> Outcome<bool> {
        let client = self.connect().await?;
        Ok(client.query_one(question, &[]).await?.get(0))
    }

    /// Ends it at once, and for good: it is fenced.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// What nodes need to know.
    pub(crate) fn variables(&self) -> Variables {
        variables(&self.place())
    }
}

fn variables(places: &str) -> Variables {
    let url = format!("postgres://doorward@{places}/postgres?sslmode=disable");
    vec![
        ("DATABASE__BACKEND", "postgres".to_owned()),
        ("DATABASE__POSTGRES__URL", url),
    ]
}

impl Pair {
    /// A primary on one machine and its standby on another; with `synchronous`, nothing is acknowledged before the
    /// standby has it on its disk.
    pub(crate) async fn start(
        (here, there): (&Machine, &Machine),
        folder: &Path,
        synchronous: bool,
    ) -> Outcome<Self> {
        let primary = Server::alone(here, &folder.join("primary")).await?;
        let standby = Server::standby_of(&primary, there, &folder.join("standby")).await?;
        if synchronous {
            let client = primary.connect().await?;
            let setting = format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'");
            client.batch_execute(&setting).await?;
            client.batch_execute("SELECT pg_reload_conf()").await?;
        }
        let state = if synchronous { "sync" } else { "async" };
        let streams = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = '{state}')"
        );
        until("the standby streams", async || {
            matches!(primary.says(&streams).await, Ok(true))
        })
        .await?;
        Ok(Self { primary, standby })
    }

    /// Makes the standby a primary, whatever the old one does.
    pub(crate) async fn promote(&self) -> Outcome<()> {
        if !self.standby.says("SELECT pg_promote()").await? {
            return Err("the standby was not promoted".into());
        }
        Ok(())
    }

    /// What nodes need to know: both, of which they use the one that takes writes.
    pub(crate) fn variables(&self) -> Variables {
        let (primary, standby) = (self.primary.place(), self.standby.place());
        variables(&format!("{primary},{standby}"))
    }
}
