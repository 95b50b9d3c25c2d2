//! Doorward as people run it: the program itself, in a process of its own, in production.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use doorward::{clock::Stopwatch, secret::SecretString, store::settings::Backend};

use crate::{Outcome, database::Database};

/// A running server; it ends with this value.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
    /// From the start of the process to the first answer.
    pub(crate) started_in: Duration,
}

impl Served {
    /// Starts the server on a database that is there, with settings besides.
    pub(crate) async fn start(
        database: &Database,
        key: &SecretString,
        more: &[(&str, &str)],
    ) -> Outcome<Self> {
        let settings = database.settings();
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("serve").current_dir(database.folder());
        command.envs([
            ("DOORWARD__ENVIRONMENT", "production"),
            ("DOORWARD__PUBLIC_URL", "http://localhost"),
            ("DOORWARD__HTTP__LISTEN", "127.0.0.1:0"),
            ("DOORWARD__TOKENS__ISSUER", "doorward"),
            ("DOORWARD__TOKENS__KEY", key.expose()),
            ("DOORWARD__LOG__FORMAT", "json"),
            // The servers of ./tests/run forget what a power cut takes.
            (
                "DOORWARD__DOCTOR__IGNORE",
                "postgres.fsync,postgres.full_page_writes",
            ),
        ]);
        command.env(
            "DOORWARD__DATABASE__BACKEND",
            database.backend().to_string(),
        );
        match database.backend() {
            Backend::Sqlite => {
                command.env("DOORWARD__DATABASE__SQLITE__PATH", &settings.sqlite.path)
            }
            Backend::Postgres => command.env(
                "DOORWARD__DATABASE__POSTGRES__URL",
                settings.postgres.url.expose(),
            ),
            Backend::Mongodb => command
                .env(
                    "DOORWARD__DATABASE__MONGODB__URL",
                    settings.mongodb.url.expose(),
                )
                .env(
                    "DOORWARD__DATABASE__MONGODB__DATABASE",
                    &settings.mongodb.database,
                ),
        };
        command.envs(more.iter().copied());
        let log: PathBuf = database.folder().join("server.log");
        command.stdout(Stdio::piped()).stderr(File::create(&log)?);
        let watch = Stopwatch::start();
        let mut child = command.spawn()?;
        let said = child.stdout.take().ok_or("no standard output")?;
        let listening = BufReader::new(said).lines().find_map(|line| {
            let line = line.ok()?;
            line.strip_prefix("listening on http://").map(str::to_owned)
        });
        let Some(address) = listening else {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("the server did not start: {said}").into());
        };
        crate::client::wait_for(&address, "/health/live").await?;
        Ok(Self {
            child,
            address,
            started_in: watch.elapsed(),
        })
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        self.status("VmRSS:")
    }

    /// The most resident memory there ever was, in KiB.
    pub(crate) fn peak(&self) -> Outcome<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, label: &str) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(label));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.ok_or("the system does not tell memory")?.parse()?)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A process that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
