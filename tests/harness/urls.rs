//! Databases as the commands of the program are told of them.

use doorward::store::settings::{Backend, DatabaseSettings};

/// The URL of a database.
pub(crate) fn url_of(settings: &DatabaseSettings) -> String {
    match settings.backend {
        Backend::Sqlite => format!("sqlite:{}", settings.sqlite.path.display()),
        Backend::Postgres => settings.postgres.url.expose().clone(),
        Backend::Mongodb => {
            let database = format!("/{}?", settings.mongodb.database);
            settings.mongodb.url.expose().replacen("/?", &database, 1)
        }
    }
}
