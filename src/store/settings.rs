//! `[database]`: which database, and how to reach it. Switching is one word.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Span,
    secret::SecretString,
    setting::{BadSetting, shown},
};

/// Which database Doorward keeps its users and sessions in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Embedded; one node.
    Sqlite,
    /// Any number of nodes.
    #[serde(alias = "postgresql")]
    Postgres,
    /// Any number of nodes; a replica set.
    Mongodb,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Mongodb => "mongodb",
        })
    }
}

/// `[database]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `sqlite` (default), `postgres` or `mongodb`.
    pub backend: Backend,
    /// Whether `serve` applies pending migrations. Default false; SQLite in development does it anyway.
    pub auto_migrate: bool,
    /// Obeyed when the backend is `sqlite`.
    pub sqlite: SqliteSettings,
    /// Obeyed when the backend is `postgres`.
    pub postgres: PostgresSettings,
    /// Obeyed when the backend is `mongodb`.
    pub mongodb: MongoSettings,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            backend: Backend::Sqlite,
            auto_migrate: false,
            sqlite: SqliteSettings::default(),
            postgres: PostgresSettings::default(),
            mongodb: MongoSettings::default(),
        }
    }
}

impl DatabaseSettings {
    /// Checks the section of the chosen database; the others may say anything.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        match self.backend {
            Backend::Sqlite if self.sqlite.path.as_os_str().is_empty() => Err(BadSetting::new(
                "database.sqlite.path",
                "is empty",
                "name a file, e.g. ./data/doorward.db",
            )),
            Backend::Sqlite => Ok(()),
            Backend::Postgres => {
                check_url(
                    "database.postgres.url",
                    &self.postgres.url,
                    &["postgres://", "postgresql://"],
                )?;
                check_span(
                    "database.postgres.acquire_timeout",
                    self.postgres.acquire_timeout,
                )?;
                check_span(
                    "database.postgres.statement_timeout",
                    self.postgres.statement_timeout,
                )?;
                if !(2..=1000).contains(&self.postgres.max_connections) {
                    let problem = format!("{} is outside 2 to 1000", self.postgres.max_connections);
                    return Err(BadSetting::new(
                        "database.postgres.max_connections",
                        problem,
                        "set it to 10",
                    ));
                }
                if !(1..=100).contains(&self.postgres.limiter_connections) {
                    return Err(BadSetting::new(
                        "database.postgres.limiter_connections",
                        format!("{} is outside 1 to 100", self.postgres.limiter_connections),
                        "set it to 4",
                    ));
                }
                Ok(())
            }
            Backend::Mongodb => {
                check_url(
                    "database.mongodb.url",
                    &self.mongodb.url,
                    &["mongodb://", "mongodb+srv://"],
                )?;
                check_span(
                    "database.mongodb.acquire_timeout",
                    self.mongodb.acquire_timeout,
                )?;
                check_span(
                    "database.mongodb.statement_timeout",
                    self.mongodb.statement_timeout,
                )?;
                check_database_name(&self.mongodb.database)
            }
        }
    }

    /// The key of the chosen database's address, for messages.
    #[must_use]
    pub fn address_key(&self) -> &'static str {
        match self.backend {
            Backend::Sqlite => "database.sqlite.path",
            Backend::Postgres => "database.postgres.url",
            Backend::Mongodb => "database.mongodb.url",
        }
    }
}

fn check_url(key: &str, url: &SecretString, schemes: &[&str]) -> Result<(), BadSetting> {
    let remedy = format!(
        "set it to {}user:password@host/…, or name a file that holds it in {key}_file",
        schemes[0]
    );
    if url.is_empty() {
        return Err(BadSetting::new(key, "is empty", remedy));
    }
    if schemes
        .iter()
        .all(|scheme| !url.expose().starts_with(scheme))
    {
        return Err(BadSetting::new(
            key,
            format!("does not begin with {}", schemes.join(" or ")),
            remedy,
        ));
    }
    Ok(())
}

/// The rules of MongoDB (<https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions>).
fn check_database_name(name: &str) -> Result<(), BadSetting> {
    let odd = name.contains([
        '/', '\\', '.', ' ', '"', '$', '\0', '*', '<', '>', ':', '|', '?',
    ]);
    let reserved = ["admin", "local", "config"].contains(&name);
    if name.is_empty() || name.len() > 63 || odd || reserved {
        return Err(BadSetting::new(
            "database.mongodb.database",
            format!(
                "{} cannot be the name of a database of Doorward's",
                shown(name)
            ),
            "use up to 63 letters, digits, _ and -, e.g. doorward",
        ));
    }
    Ok(())
}

fn check_span(key: &str, span: Span) -> Result<(), BadSetting> {
    if span < Span::millis(100) || span > Span::minutes(10) {
        return Err(BadSetting::new(
            key,
            format!("{span} is outside 100ms to 10m"),
            "set it to a few seconds",
        ));
    }
    Ok(())
}

/// `[database.sqlite]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteSettings {
    /// The database file; its folder is made when it is missing. Default `./data/doorward.db`.
    pub path: PathBuf,
    /// How much a power cut may cost: `full` (default) nothing, `normal` the last moments.
    pub synchronous: Synchronous,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("./data/doorward.db"),
            synchronous: Synchronous::Full,
        }
    }
}

/// SQLite's `synchronous`. A killed process loses nothing with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// Every commit reaches the disk before it is acknowledged.
    Full,
    /// A power cut may undo the last acknowledged commits.
    Normal,
}

/// `[database.postgres]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    /// `postgres://user:password@host/database`. Other machines are spoken to over TLS with a verified
    /// certificate unless the URL says `sslmode=disable`.
    pub url: SecretString,
    /// A file that holds the URL instead.
    pub url_file: String,
    /// Connections for everything but session lookups, which have four of their own, and limits. Default 10.
    pub max_connections: u32,
    /// Connections for counting limits, so that a storm of logins keeps nothing else waiting. Default 4.
    pub limiter_connections: u32,
    /// How long to wait for a connection. Default 2s.
    pub acquire_timeout: Span,
    /// How long a statement may take; all that one request asks may take a second longer. Default 5s.
    pub statement_timeout: Span,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            url: SecretString::default(),
            url_file: String::new(),
            max_connections: 10,
            limiter_connections: 4,
            acquire_timeout: Span::secs(2),
            statement_timeout: Span::secs(5),
        }
    }
}

/// `[database.mongodb]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MongoSettings {
    /// `mongodb://user:password@host/?replicaSet=rs0`; a replica set, of one member at the least. Other machines are
    /// spoken to over TLS with a verified certificate unless it says `tls=false`.
    pub url: SecretString,
    /// A file that holds the URL instead.
    pub url_file: String,
    /// The database. Default `doorward`.
    pub database: String,
    /// Whether sessions are read with read concern `linearizable`: a deposed primary cannot answer
    /// then, at the price of one round trip to the other members for each lookup. Default false.
    pub linearizable: bool,
    /// How long to wait for a server. Default 2s.
    pub acquire_timeout: Span,
    /// How long an operation may take. Default 5s.
    pub statement_timeout: Span,
}

impl Default for MongoSettings {
    fn default() -> Self {
        Self {
            url: SecretString::default(),
            url_file: String::new(),
            database: "doorward".to_owned(),
            linearizable: false,
            acquire_timeout: Span::secs(2),
            statement_timeout: Span::secs(5),
        }
    }
}
