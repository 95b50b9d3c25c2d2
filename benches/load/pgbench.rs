//! The same join on the same PostgreSQL by `pgbench`: what the database alone could answer.

use std::{env, fs, path::PathBuf, process::Command};

use tokio_postgres::config::Host;

use crate::{Outcome, database::Database, output_of, wrk::Load};

/// The columns that `src/store/postgres/hot.rs` reads, of sessions and their users.
pub(crate) const JOIN: &str = "SELECT sessions.id, sessions.user_id, sessions.authenticated_at, \
     sessions.last_seen_at, sessions.expires_at, sessions.closed_at, sessions.close_reason, \
     sessions.generation_used, \
     users.id, users.email, users.email_verified_at, users.username, users.attributes, \
     users.roles, users.status, users.deactivated_at, users.max_sessions, \
     users.on_session_limit, users.created_at, users.updated_at \
     FROM sessions INNER JOIN users ON sessions.user_id = users.id";

/// `pgbench` on one database.
pub(crate) struct PgBench {
    program: PathBuf,
    script: PathBuf,
    database: tokio_postgres::Config,
}

impl PgBench {
    /// Finds the program and writes its script.
    pub(crate) fn prepare(database: &Database, users: u32) -> Outcome<Self> {
        let script = database.folder().join("join.sql");
        let wanted = "WHERE sessions.id = lpad(to_hex(:n::integer), 32, '0')::uuid;";
        fs::write(
            &script,
            format!("\\set n random(1, {users})\n{JOIN} {wanted}\n"),
        )?;
        Ok(Self {
            program: program()?,
            script,
            database: database.postgres()?,
        })
    }

    /// Measures the join.
    pub(crate) fn run(&self, connections: usize, seconds: u64) -> Outcome<Load> {
        let mut command = Command::new(&self.program);
        command.args(["-n", "-M", "prepared", "-j", "2", "-f"]);
        command.arg(&self.script);
        let (connections, seconds) = (connections.to_string(), seconds.to_string());
        command.args(["-c", &connections, "-T", &seconds]);
        let host = match self.database.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => "127.0.0.1".to_owned(),
        };
        let port = self.database.get_ports().first().copied().unwrap_or(5432);
        command.env("PGHOST", host).env("PGPORT", port.to_string());
        if let Some(user) = self.database.get_user() {
            command.env("PGUSER", user);
        }
        if let Some(password) = self.database.get_password() {
            command.env("PGPASSWORD", String::from_utf8_lossy(password).into_owned());
        }
        if let Some(name) = self.database.get_dbname() {
            command.env("PGDATABASE", name);
        }
        let said = output_of(&mut command)?;
        let number = |label: &str| -> Outcome<f64> {
            let found = said.lines().find_map(|line| line.strip_prefix(label));
            let number = found.and_then(|rest| rest.split(' ').next());
            Ok(number.ok_or("pgbench says something new")?.parse()?)
        };
        if number("number of failed transactions: ")? > 0.0 {
            return Err("pgbench had failures".into());
        }
        Ok(Load {
            per_second: number("tps = ")?,
            p50_micros: number("latency average = ")? * 1000.0,
            p99_micros: None,
        })
    }
}

fn program() -> Outcome<PathBuf> {
    let given = env::var_os("DOORWARD_TEST_PG_BIN").map(PathBuf::from);
    let installed = fs::read_dir("/usr/lib/postgresql");
    let mut folders: Vec<PathBuf> = installed
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    folders.sort();
    given
        .into_iter()
        .chain(folders.into_iter().rev())
        .map(|folder| folder.join("pgbench"))
        .find(|program| program.is_file())
        .ok_or_else(|| "pgbench is missing: install PostgreSQL or set DOORWARD_TEST_PG_BIN".into())
}
