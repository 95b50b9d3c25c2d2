//! A database of its own for each backend, gone afterwards.

use std::{env, process};

use doorward::{
    clock::Span,
    store::{
        open::{Opened, open},
        settings::{Backend, DatabaseSettings, Synchronous},
    },
};
use mongodb::Client;
use tempfile::TempDir;
use tokio_postgres::{Config, NoTls};

use crate::Outcome;

/// One backend's database.
pub(crate) struct Database {
    settings: DatabaseSettings,
    name: String,
    /// Where SQLite's file is; dropping it removes the folder.
    folder: TempDir,
}

impl Database {
    /// A database without tables; `name` tells those of one run apart.
    pub(crate) async fn create(backend: Backend, name: &str) -> Outcome<Self> {
        let database = Self {
            settings: DatabaseSettings {
                backend,
                ..DatabaseSettings::default()
            },
            name: format!("doorward_bench_{}_{name}", process::id()),
            folder: tempfile::tempdir()?,
        };
        database.made().await
    }

    async fn made(mut self) -> Outcome<Self> {
        match self.settings.backend {
            Backend::Sqlite => {
                self.settings.sqlite.path = self.folder.path().join("doorward.db");
                // Only filling the tables writes; what is measured reads.
                self.settings.sqlite.synchronous = Synchronous::Normal;
            }
            Backend::Postgres => {
                let server = server("DOORWARD_TEST_POSTGRES_URL")?;
                by_hand(&server, &format!("CREATE DATABASE {}", self.name)).await?;
                self.settings.postgres.url = with_database(&server, &self.name)?.into();
            }
            Backend::Mongodb => {
                self.settings.mongodb.url = server("DOORWARD_TEST_MONGODB_URL")?.into();
                self.settings.mongodb.database.clone_from(&self.name);
            }
        }
        // Filling the tables may keep a small machine busy.
        self.settings.postgres.acquire_timeout = Span::secs(30);
        self.settings.mongodb.acquire_timeout = Span::secs(30);
        Ok(self)
    }

    /// As Doorward is told of it.
    pub(crate) fn settings(&self) -> &DatabaseSettings {
        &self.settings
    }

    pub(crate) fn backend(&self) -> Backend {
        self.settings.backend
    }

    /// Opens the database and brings its schema up to date.
    pub(crate) async fn open(&self) -> Outcome<Opened> {
        let opened = open(&self.settings).await.map_err(|e| e.to_string())?;
        opened.migrations.apply().await?;
        Ok(opened)
    }

    /// A place for files of this database's measurements.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// How PostgreSQL is reached.
    pub(crate) fn postgres(&self) -> Outcome<Config> {
        Ok(self.settings.postgres.url.expose().parse()?)
    }

    /// Removes it from its server.
    pub(crate) async fn drop(self) -> Outcome<()> {
        match self.settings.backend {
            Backend::Sqlite => {}
            Backend::Postgres => {
                let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
                by_hand(&server("DOORWARD_TEST_POSTGRES_URL")?, &statement).await?;
            }
            Backend::Mongodb => {
                let client = Client::with_uri_str(self.settings.mongodb.url.expose()).await?;
                client.database(&self.name).drop().await?;
            }
        }
        Ok(())
    }
}

fn server(variable: &str) -> Outcome<String> {
    env::var(variable).map_err(|_| format!("set {variable}, or run ./benches/run").into())
}

async fn by_hand(url: &str, statement: &str) -> Outcome<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute(statement).await?;
    drop(client);
    connection.await??;
    Ok(())
}

/// The same server and user, another database.
fn with_database(server: &str, name: &str) -> Outcome<String> {
    let (address, options) = server.split_once('?').unwrap_or((server, ""));
    let (scheme, rest) = address
        .split_once("://")
        .ok_or("DOORWARD_TEST_POSTGRES_URL must begin with postgres://")?;
    let host = rest.split('/').next().unwrap_or(rest);
    Ok(format!("{scheme}://{host}/{name}?{options}"))
}
