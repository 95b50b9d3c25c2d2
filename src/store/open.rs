//! Opens the database that the settings name: the one place where the backend is chosen.

use std::sync::Arc;

use crate::{
    finding::Finding,
    setting::BadSetting,
    store::{
        Migrations, Store, StoreError, StoreResult,
        moving::Moving,
        settings::{Backend, DatabaseSettings},
    },
};

/// An open database: the decisions, and the schema they rest on.
#[derive(Clone)]
pub struct Opened {
    /// The decisions.
    pub store: Arc<dyn Store>,
    /// The schema.
    pub migrations: Arc<dyn Migrations>,
    /// All that is stored, for a transfer.
    pub moving: Arc<dyn Moving>,
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mongodb"))]
impl Opened {
    fn new<S: Store + Migrations + Moving + Clone + 'static>(store: S) -> Self {
        Self {
            store: Arc::new(store.clone()),
            migrations: Arc::new(store.clone()),
            moving: Arc::new(store),
        }
    }
}

/// Opens the chosen database and asks it for its time; nothing is migrated.
///
/// # Errors
/// [`BadSetting`] naming the key of the database's address when it cannot be reached.
pub async fn open(settings: &DatabaseSettings) -> Result<Opened, BadSetting> {
    settings.check()?;
    let opened = connect(settings).await?;
    let answer = opened.store.time().await;
    answer.map_err(|error| unusable(settings, error))?;
    Ok(opened)
}

/// Asks the chosen database about itself, without opening it: what of its settings breaks or weakens the promises. It
/// writes nothing, and takes no longer than connecting and one statement may.
///
/// # Errors
/// [`StoreError`] where it cannot be asked; why, [`open`] says better.
pub async fn examine(settings: &DatabaseSettings) -> StoreResult<Vec<Finding>> {
    match settings.backend {
        #[cfg(feature = "sqlite")]
        Backend::Sqlite => super::sqlite::health::examine(&settings.sqlite).await,
        #[cfg(feature = "postgres")]
        Backend::Postgres => super::postgres::health::examine(&settings.postgres).await,
        #[cfg(feature = "mongodb")]
        Backend::Mongodb => super::mongodb::health::examine(&settings.mongodb).await,
        #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mongodb")))]
        backend => {
            let what = format!("this build does not contain {backend}");
            Err(StoreError::Driver(what))
        }
    }
}

/// The reason why a database cannot be used, in words for whoever starts the server.
pub(crate) fn unusable(settings: &DatabaseSettings, error: StoreError) -> BadSetting {
    let remedy = match settings.backend {
        Backend::Sqlite => "check that the folder can be written",
        Backend::Postgres | Backend::Mongodb => {
            "check the address and that the database is running"
        }
    };
    let problem = match error {
        StoreError::Unavailable(why) | StoreError::Driver(why) => why,
        error @ StoreError::Corrupt { .. } => error.to_string(),
    };
    BadSetting::new(
        settings.address_key(),
        format!("the database cannot be used: {problem}"),
        remedy,
    )
}

async fn connect(settings: &DatabaseSettings) -> Result<Opened, BadSetting> {
    match settings.backend {
        #[cfg(feature = "sqlite")]
        Backend::Sqlite => super::sqlite::SqliteStore::connect(&settings.sqlite)
            .await
            .map(Opened::new)
            .map_err(|error| unusable(settings, error)),
        #[cfg(feature = "postgres")]
        Backend::Postgres => super::postgres::PostgresStore::connect(&settings.postgres)
            .await
            .map(Opened::new)
            .map_err(|error| unusable(settings, error)),
        #[cfg(feature = "mongodb")]
        Backend::Mongodb => super::mongodb::MongoStore::connect(&settings.mongodb)
            .await
            .map(Opened::new),
        #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mongodb")))]
        backend => {
            let what = format!("this build does not contain {backend}");
            Err(unusable(settings, StoreError::Driver(what)))
        }
    }
}
