//! `[database.mongodb]`: where the database is and how long it may take.

use serde::{Deserialize, Serialize};

use crate::{clock::Span, secret::SecretString, setting::BadSetting};

/// `[database.mongodb]`: where the database is and how long it may take.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MongoSettings {
    /// A connection string such as `mongodb://db1,db2,db3/?replicaSet=rs0`; it may hold a password.
    pub url: SecretString,
    /// A file that holds the connection string, instead of `url`. Default: none.
    pub url_file: String,
    /// The database's name. Default `doorward`.
    pub database: String,
    /// Whether a session is looked up with read concern `linearizable`, one document at a time: slower,
    /// but a primary that was deposed without knowing it cannot answer. Default false.
    pub linearizable: bool,
    /// How long to look for a primary. Default 2 s.
    pub server_selection_timeout: Span,
    /// How long one operation may take in all. Default 5 s.
    pub operation_timeout: Span,
}

impl Default for MongoSettings {
    fn default() -> Self {
        Self {
            url: SecretString::default(),
            url_file: String::new(),
            database: "doorward".into(),
            linearizable: false,
            server_selection_timeout: Span::secs(2),
            operation_timeout: Span::secs(5),
        }
    }
}

impl MongoSettings {
    /// Whether every setting can be obeyed.
    ///
    /// # Errors
    /// [`BadSetting`] for the first that cannot.
    pub fn check(&self) -> Result<(), BadSetting> {
        let name = &self.database;
        let name_ok = (1..=38).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !name_ok {
            return Err(BadSetting::new(
                "database.mongodb.database",
                format!("`{name}` is not the name of a database"),
                "use up to 38 letters, digits, `_` and `-`",
            ));
        }
        let (selection, operation) = (self.server_selection_timeout, self.operation_timeout);
        if selection < Span::millis(100) || selection > operation {
            return Err(BadSetting::new(
                "database.mongodb.server_selection_timeout",
                format!("{selection} is not between 100ms and operation_timeout ({operation})"),
                "set it to 2s",
            ));
        }
        if operation > Span::minutes(1) {
            return Err(BadSetting::new(
                "database.mongodb.operation_timeout",
                format!("{operation} is more than a minute"),
                "set it to 5s",
            ));
        }
        Ok(())
    }

    /// The connection string, from the file if one is named.
    pub(super) fn connection_string(&self) -> Result<SecretString, BadSetting> {
        match (self.url.is_empty(), self.url_file.is_empty()) {
            (false, true) => Ok(self.url.clone()),
            (true, false) => std::fs::read_to_string(&self.url_file)
                .map(|text| SecretString::from(text.trim()))
                .map_err(|error| {
                    BadSetting::new(
                        "database.mongodb.url_file",
                        format!("`{}` cannot be read: {error}", self.url_file),
                        "name a file that holds the connection string",
                    )
                }),
            (true, true) => Err(BadSetting::new(
                "database.mongodb.url",
                "is not set",
                "set it, or url_file, to a connection string such as \
                 mongodb://localhost/?replicaSet=rs0",
            )),
            (false, false) => Err(BadSetting::new(
                "database.mongodb.url",
                "is set together with url_file",
                "set one of the two",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_obeyed_is_named() {
        let good = MongoSettings::default();
        assert_eq!(good.check(), Ok(()));
        let wrong = |change: fn(&mut MongoSettings)| {
            let mut settings = MongoSettings::default();
            change(&mut settings);
            settings.check().map_err(|bad| bad.key)
        };
        assert_eq!(
            wrong(|s| s.database = "a.b".into()),
            Err("database.mongodb.database".into())
        );
        assert_eq!(
            wrong(|s| s.server_selection_timeout = Span::secs(6)),
            Err("database.mongodb.server_selection_timeout".into())
        );
        assert_eq!(
            wrong(|s| s.operation_timeout = Span::days(1)),
            Err("database.mongodb.operation_timeout".into())
        );
    }

    #[test]
    fn the_connection_string_comes_from_one_place() {
        let key = |settings: &MongoSettings| settings.connection_string().map_err(|bad| bad.key);
        let mut settings = MongoSettings::default();
        assert_eq!(
            key(&settings).err().as_deref(),
            Some("database.mongodb.url")
        );
        settings.url_file = "/nonexistent/url".into();
        assert_eq!(
            key(&settings).err().as_deref(),
            Some("database.mongodb.url_file")
        );
        settings.url = "mongodb://localhost".into();
        assert_eq!(
            key(&settings).err().as_deref(),
            Some("database.mongodb.url")
        );
        settings.url_file.clear();
        assert_eq!(
            settings.connection_string().map(|url| url.expose().clone()),
            Ok("mongodb://localhost".into())
        );
    }
}
