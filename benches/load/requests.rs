//! Checked requests: `/v1/auth/me` and `/v1/auth/check` beside what the database alone, or a bare endpoint, does on
//! the same machine in the same rounds.

use std::path::PathBuf;

use doorward::{
    clock::{Clock, SystemClock},
    secret::SecretString,
    store::settings::Backend,
};

use crate::{
    Options, Outcome,
    baselines::{self, Baseline},
    database::Database,
    load_average,
    pgbench::PgBench,
    report::{Measured, Report},
    seed,
    served::Served,
    service::{key, write_tokens},
    wrk::{self, Load},
};

pub(crate) const ME: &str = "/v1/auth/me";
const CHECK: &str = "/v1/auth/check";

/// A filled database with the program on it.
pub(crate) struct Side<'a> {
    pub(crate) database: &'a Database,
    pub(crate) key: SecretString,
    pub(crate) tokens: PathBuf,
    pub(crate) users: u32,
}

impl<'a> Side<'a> {
    pub(crate) async fn prepare(database: &'a Database, users: u32) -> Outcome<Self> {
        eprintln!("{}: {users} users and sessions", database.backend());
        let opened = database.open().await?;
        seed::fill(database, &opened.store, users, SystemClock::new().now()).await?;
        opened.store.close().await;
        let key = key();
        let tokens = database.folder().join("tokens");
        write_tokens(&tokens, &key, users)?;
        Ok(Self {
            database,
            key,
            tokens,
            users,
        })
    }

    pub(crate) fn backend(&self) -> Backend {
        self.database.backend()
    }

    /// Starts the program without the limits that the load would meet.
    pub(crate) async fn serve(&self, more: &[(&str, &str)]) -> Outcome<Served> {
        Served::start(self.database, &self.key, more).await
    }
}

/// Everything that one round compares.
struct Running<'a> {
    side: &'a Side<'a>,
    served: Served,
    /// For one connection.
    trip: Baseline,
    pgbench: Option<PgBench>,
    constant: Option<Baseline>,
}

pub(crate) async fn measure(
    options: &Options,
    sides: &[Side<'_>],
    report: &mut Report,
) -> Outcome<()> {
    let mut running = Vec::new();
    for side in sides {
        let backend = side.backend();
        let pgbench = (backend == Backend::Postgres)
            .then(|| PgBench::prepare(side.database, side.users))
            .transpose()?;
        let constant = (backend == Backend::Sqlite)
            .then(|| Baseline::constant(side))
            .transpose()?;
        running.push(Running {
            side,
            served: side.serve(&[]).await?,
            trip: Baseline::trip(side)?,
            pgbench,
            constant,
        });
    }
    for round in 1..=options.rounds {
        let (of, load) = (options.rounds, load_average());
        eprintln!("round {round} of {of}, load average {load}");
        for &connections in &options.connections {
            for one in &running {
                one.round(options, connections, report).await?;
            }
        }
    }
    Ok(())
}

impl Running<'_> {
    async fn round(
        &self,
        options: &Options,
        connections: usize,
        report: &mut Report,
    ) -> Outcome<()> {
        let (backend, seconds) = (self.side.backend(), options.seconds);
        let ask = |address: &str, path: &str| {
            let tokens = &self.side.tokens;
            let load = wrk::run(address, path, tokens, connections, seconds);
            load.map_err(|e| format!("{backend}: {e}"))
        };
        let limit = if connections == 1 {
            Some(ask(&self.trip.address, ME)?)
        } else {
            self.limit(connections, seconds).await?
        };
        for path in [ME, CHECK] {
            let load = ask(&self.served.address, path)?;
            let limit = match &self.constant {
                Some(constant) if connections > 1 => Some(ask(&constant.address, path)?),
                _ => limit,
            };
            report.add((backend, path, connections), Measured { load, limit });
        }
        Ok(())
    }

    /// What the database alone does.
    async fn limit(&self, connections: usize, seconds: u64) -> Outcome<Option<Load>> {
        let settings = self.side.database.settings();
        Ok(match (self.side.backend(), &self.pgbench) {
            (Backend::Postgres, Some(pgbench)) => Some(pgbench.run(connections, seconds)?),
            (Backend::Mongodb, _) => {
                Some(baselines::find_one(settings, self.side.users, connections, seconds).await?)
            }
            _ => None,
        })
    }
}

/// The same requests on a large database and on a small one, in turn.
pub(crate) async fn growth(
    options: &Options,
    sides: &[Side<'_>],
    report: &mut Report,
) -> Outcome<()> {
    for small in sides {
        let database = Database::create(small.backend(), "many").await?;
        let grown = grow(options, small, &database, report).await;
        database.drop().await?;
        grown?;
    }
    Ok(())
}

async fn grow(
    options: &Options,
    small: &Side<'_>,
    database: &Database,
    report: &mut Report,
) -> Outcome<()> {
    let large = Side::prepare(database, options.many).await?;
    let (few, many) = (small.serve(&[]).await?, large.serve(&[]).await?);
    let connections = options.connections.iter().copied().max().unwrap_or(64);
    // The first round warms up.
    for round in 0..=options.rounds {
        let load = |served: &Served, side: &Side<'_>| {
            wrk::run(
                &served.address,
                ME,
                &side.tokens,
                connections,
                options.seconds,
            )
        };
        let (less, more) = (load(&few, small)?, load(&many, &large)?);
        if round > 0 {
            let measured = Measured {
                load: more,
                limit: Some(less),
            };
            report.grow((small.backend(), ME, connections), measured);
        }
    }
    Ok(())
}
